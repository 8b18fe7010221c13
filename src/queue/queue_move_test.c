/* Blocks of which most is dead: which ones are named, and how their live rows get into
 * another block. Requests and replies are shown as text, see test_text.h. */
#include "queue/queue.h"

#include "queue/test_text.h"

#include "test.h"

#include <string.h>

/* Four rows of two fields in one block, 40 bytes in each column. */
static void
put_four(struct talk *talk)
{
    CHECK_OK(talk_call(
        talk, "['kv_put','p',['a','b','c','d'],[[@1],'y',['x','z'],[40,40],[]],nil]"));
}

/* ---- Which blocks are sparse ---- */

TEST(a_block_with_more_live_than_dead_is_not_sparse)
{
    TALK(t);
    put_four(&t);
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']", "[]");
    CHECK_OK(talk_call(&t, "['kv_clear','p',['a']]"));
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']", "[]");
}

TEST(a_half_dead_block_is_named_with_its_live_rows)
{
    TALK(t);
    put_four(&t);
    CHECK_OK(talk_call(&t, "['kv_clear','p',['c','a']]"));
    CHECK_REPLY(&t, "['sparse_blocks',1000,'other']", "[]");
    CHECK_REPLY(&t, "['sparse_blocks',0,'y']", "[]");
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']",
                "[[@1,'p',['x','z'],['b','d'],[1,3]]]");
}

TEST(a_block_is_not_named_twice_in_a_row)
{
    TALK(t);
    put_four(&t);
    CHECK_OK(talk_call(&t, "['kv_clear','p',['c','a']]"));
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']",
                "[[@1,'p',['x','z'],['b','d'],[1,3]]]");
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']", "[]");
    for (int i = 0; i < 1000; i++)
        CHECK_OK(talk_call(&t, "['stats']"));
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']",
                "[[@1,'p',['x','z'],['b','d'],[1,3]]]");
}

TEST(rows_of_one_block_with_different_fields_are_groups)
{
    TALK(t);
    put_four(&t);
    CHECK_OK(talk_call(&t, "['kv_clear','p',['c']]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b'],[[@2],'y',['z'],[20],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_clear','p',['b']]"));
    CHECK_REPLY(&t, "['sparse_blocks',1000,'y']",
                "[[@1,'p',['x','z'],['d'],[3]],[@1,'p',['x'],['a'],[0]],"
                "[@2,'p',['z'],['a'],[0]]]");
}

TEST(the_blocks_with_most_dead_bytes_come_first_and_only_as_many_as_wanted)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b'],[[@1],'y',['x'],[100],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['c','d'],[[@2],'y',['x'],[300],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['e','f'],[[@3],'y',['x'],[200],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_clear','p',['a','d','e']]"));
    CHECK_REPLY(&t, "['sparse_blocks',151,'y']",
                "[[@2,'p',['x'],['c'],[0]],[@3,'p',['x'],['f'],[1]]]");
    CHECK_REPLY(&t, "['sparse_blocks',1,'y']", "[[@1,'p',['x'],['b'],[1]]]");
}

/* ---- Moving ---- */

TEST(moved_rows_are_found_in_their_new_block_and_the_old_one_is_dead)
{
    TALK(t);
    put_four(&t);
    CHECK_OK(talk_call(&t, "['kv_clear','p',['a','c']]"));
    CHECK_REPLY(&t, "['kv_move','p',['b','d'],[[@2],'y',['x','z'],[20,20],[]],@1]",
                "[[@1]]");
    CHECK_REPLY(&t, "['kv_get','p',['b','d'],nil]",
                "[nil,['x','z'],[[[0,1],[[@2,'y']],[0,0,2]]]]");
    CHECK_REPLY(&t, "['kv_clear','p',['b','d']]", "[[@2]]");
}

TEST(what_changed_meanwhile_does_not_move)
{
    TALK(t);
    put_four(&t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@2],'y',['x'],[10],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_clear','p',['b']]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],[[@3],'y',['x','z'],[10,10],[]],nil]"));
    CHECK_REPLY(&t, "['kv_move','p',['a','b','c'],[[@4],'y',['x','z'],[30,30],[]],@1]",
                "[[]]");
    CHECK_REPLY(&t, "['kv_get','p',['a','b','c','d'],['x']]",
                "[nil,['x'],[[[0],[[@2,'y'],[@3,'y'],[@4,'y'],[@1,'y']],"
                "[0,0,1,1,0,1,2,2,1,3,3,1]]]]");
    CHECK_REPLY(&t, "['kv_get','p',['a','b','c','d'],['z']]",
                "[nil,['z'],[[[0],[[@4,'y'],[@3,'y'],[@1,'y']],"
                "[0,0,1,1,0,1,0,2,1,2,3,1]]]]");
}

TEST(some_fields_of_a_row_can_move_and_the_others_stay)
{
    TALK(t);
    put_four(&t);
    CHECK_REPLY(&t, "['kv_move','p',['a'],[[@2],'y',['z'],[10],[]],@1]", "[[]]");
    CHECK_REPLY(&t, "['kv_get','p',['a','b'],nil]",
                "[nil,['x','z'],[[[0],[[@1,'y']],[0,0,2]],[[1],[[@2,'y'],[@1,'y']],"
                "[0,0,1,1,1,1]]]]");
}

TEST(a_move_of_nothing_is_refused_and_can_be_forgotten)
{
    TALK(t);
    put_four(&t);
    const char *gone = "none of these cells is in that block any more";
    CHECK_REFUSED(&t, "['kv_move','q',['a'],[[@2],'y',['x'],[10],[]],@1]", DS_NOT_FOUND,
                  gone);
    CHECK_REFUSED(&t, "['kv_move','p',['a'],[[@2],'y',['x'],[10],[]],@9]", DS_NOT_FOUND,
                  gone);
    CHECK_REFUSED(&t, "['kv_move','p',['no'],[[@2],'y',['x'],[10],[]],@1]",
                  DS_NOT_FOUND, gone);
    CHECK_REFUSED(&t, "['kv_move','p',['a'],[[@2],'y',['w'],[10],[]],@1]", DS_NOT_FOUND,
                  gone);
    CHECK_OK(talk_call(&t, "['kv_put','p',['e'],[[@2],'y',['x'],[10],[]],nil]"));
}

TEST(a_repeated_move_is_done_once)
{
    TALK(t);
    put_four(&t);
    const char *move = "['kv_move','p',['a'],[[@2],'y',['x'],[10],[]],@1]";
    CHECK_REPLY(&t, move, "[[]]");
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@3],'y',['x'],[10],[]],nil]"));
    CHECK_REPLY(&t, move, "[[]]");
    CHECK_REPLY(&t, "['kv_get','p',['a'],['x']]",
                "[nil,['x'],[[[0],[[@3,'y']],[0,0,1]]]]");
    CHECK_REFUSED(&t, "['kv_move','p',['b'],[[@1],'y',['x'],[10],[]],@1]", DS_INVALID,
                  "kv_move: this block was put before, with other keys");
}

TEST(bad_moves_are_refused)
{
    TALK(t);
    put_four(&t);
    CHECK_REFUSED(&t, "['kv_move','p',['a','a'],[[@2],'y',['x'],[10],[]],@1]",
                  DS_INVALID, "Got duplicated keys.");
    CHECK_REFUSED(&t, "['kv_move','p',[],[[@2],'y',['x'],[10],[]],@1]", DS_INVALID,
                  "Received an empty list as keys.");
    CHECK_REFUSED(&t, "['kv_move','p',['a'],nil,@1]", DS_INVALID,
                  "kv_move: the blocks are not");
    CHECK_REFUSED(&t, "['kv_move','p',['a','b'],[[@2,@3],'y',['x'],[10,10],[1]],@1]",
                  DS_INVALID, "into one block at a time");
    CHECK_REFUSED(&t, "['kv_move','p',['a'],[[@2],'y',['x'],[10],[]],<short>]",
                  DS_INVALID, "id is not 16 bytes");
    CHECK_REFUSED(&t, "['sparse_blocks','x','y']", DS_INVALID, "sparse_blocks: ");
}

TEST_MAIN(RUN(a_block_with_more_live_than_dead_is_not_sparse),
          RUN(a_half_dead_block_is_named_with_its_live_rows),
          RUN(a_block_is_not_named_twice_in_a_row),
          RUN(rows_of_one_block_with_different_fields_are_groups),
          RUN(the_blocks_with_most_dead_bytes_come_first_and_only_as_many_as_wanted),
          RUN(moved_rows_are_found_in_their_new_block_and_the_old_one_is_dead),
          RUN(what_changed_meanwhile_does_not_move),
          RUN(some_fields_of_a_row_can_move_and_the_others_stay),
          RUN(a_move_of_nothing_is_refused_and_can_be_forgotten),
          RUN(a_repeated_move_is_done_once), RUN(bad_moves_are_refused))
