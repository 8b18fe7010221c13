/* One connection of a client. */
#ifndef CONTROLLER_SESSION_H
#define CONTROLLER_SESSION_H

#include "controller/controller.h"

/* Takes `fd`. A failure is logged; the oldest of too many that have not said HELLO goes. */
void session_open(struct controller *controller, int fd, bool is_tcp);

/* Answers every config_get that waits: now there is a configuration. */
void sessions_announce_config(struct controller *controller);

/* Answers every `shutdown`; each reply counts as a goodbye until it is sent. */
void sessions_say_goodbye(struct controller *controller);

/* Sends what waited for the journal and its copies, and need not any more. */
void sessions_send_held(struct controller *controller);

void sessions_close(struct controller *controller);

#endif
