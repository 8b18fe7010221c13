/* A circular doubly linked list whose links live inside the elements.
 * Owner of the links: whoever owns the list. No allocation, no failure. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next; /* An empty list or an unlinked element points at itself. */
    struct list *prev;
};

#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Visits each link; `link` may be removed by the body. */
#define LIST_FOREACH(link, head)                                                      \
    for (struct list *link = (head)->next, *link##_next = link->next; link != (head); \
         link = link##_next, link##_next = link->next)

static inline void
list_init(struct list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool
list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline void
list_push_back(struct list *list, struct list *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

static inline void
list_push_front(struct list *list, struct list *link)
{
    list_push_back(list->next, link);
}

/* Unlinks; harmless on an element that is in no list. */
static inline void
list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

#endif
