//! How Linger is tested, beside the tests of single functions and of the real server in `tests/`.
//!
//! This module has no code. Each section says what is tried, what must hold, and how to run it.
//!
//! # Models
//!
//! Small pieces of the core run in every order in which their threads can meet, and with every value that a relaxed
//! load may see. Locks and atomics come from [`crate::sync`]: with `--cfg loom` they are those of the crate `loom`,
//! which drives the threads. The models are in `src/testing/models`. A wake-up that is lost is a deadlock there, and
//! fails. With every `cargo test` the same models also run on real threads, a few rounds each: that shows that they
//! work, not that all is well.
//!
//! ```sh
//! scripts/models.sh                # as .ci/run does: up to 3 preemptions
//! scripts/models.sh all            # every order there is; takes seconds more
//! scripts/models.sh all mailbox    # the models of one file
//! scripts/mutants.sh models        # breaks each guarded line and sees its model fail
//! ```
//!
//! | model | what holds |
//! |---|---|
//! | `step::one_of_all_who_want_a_channel_gone_takes_the_step` | of three who want a channel gone at once, exactly one takes the step |
//! | `step::a_channel_that_is_kicked_by_several_departs_once` | one kick says yes, and it alone pushes a departure and tells the worker |
//! | `step::an_end_names_the_session_that_main_has_begun` | a departure names a session exactly when main has granted its login |
//! | `step::a_session_ends_once_whoever_ends_it` | of a logout, a takeover and a kick, one ends the session, and the channel leaves once |
//! | `step::a_late_takeover_leaves_the_next_session_alone` | a takeover hits the session that it means, or nothing |
//! | `step::a_letter_that_says_leave_comes_after_the_step` | a worker that reads of a kick finds the step taken and the departure pushed |
//! | `names::no_two_channels_have_the_same_name` | two workers that accept at once get different names, and no more than there are |
//! | `names::a_late_kick_misses_the_slots_next_channel` | while a slot is freed and given away again, an old name hits nothing and the new channel stands |
//! | `names::who_sees_a_channel_sees_its_worker` | whoever sees a channel sees its worker, and no user from before |
//! | `names::who_sees_a_client_end_sees_what_came_before` | whoever sees the client's end sees what its worker did before |
//! | `queue::a_push_wakes_main` | a push while main goes to wait wakes it |
//! | `queue::a_push_of_many_wakes_main` | so does a push of many |
//! | `queue::an_ask_wakes_main` | so does an ask |
//! | `queue::what_presses_wakes_main_that_rests` | while main rests between ends, whatever somebody waits for wakes it |
//! | `queue::main_that_waits_for_several_gets_them_all` | pushes that share a wake-up are all taken |
//! | `queue::entries_of_one_thread_keep_their_order` | entries come out once, in their thread's order, those of one push side by side |
//! | `queue::the_last_place_for_asks_is_given_once_and_ends_need_none` | asks are bounded, reserved places are not touched, a taken ask gives its place back |
//! | `mailbox::after_the_step_one_look_into_the_mailbox_is_enough` | a worker that empties its mailbox after the step has seen every chat that has not come back |
//! | `mailbox::a_chat_for_a_session_that_ended_comes_back_though_the_channel_lives_on` | nothing for an old session reaches the next one on the channel |
//! | `mailbox::nothing_for_a_session_lies_behind_the_letter_that_it_has_left` | behind the letter of a kick lies no chat for that session |
//! | `mailbox::no_letter_lies_in_the_mailbox_of_a_worker_that_sleeps` | the wake-up comes behind the letter |
//! | `mailbox::letters_of_one_push_stay_together` | letters of one push are side by side, in order, taken once |
//! | `registry::what_comes_late_leaves_a_newer_session_on_another_channel_alone` | a late opening and a late removal change nothing about a newer session elsewhere |
//! | `registry::what_comes_late_leaves_a_newer_session_on_the_same_channel_alone` | nor about one on the same channel |
//! | `registry::a_session_that_is_removed_does_not_come_back` | opening a session while it is removed does not bring it back |
//! | `registry::nothing_newer_overtakes_what_main_has_held` | no worker writes to a session before main has handed over what it held |
//!
//! What the models leave out: the bound of asks is 2 in them, and loom knows no time, so a wait there has no end.
//!
//! # Mutations
//!
//! A test that cannot fail shows nothing. So `tests/mutations` has patches that break the server, one line or a few each.
//! Above the diff stand the mutation's name and what has to find it out: a model, or the simulation below with what it has
//! to say. `scripts/mutants.sh` applies them one by one to a copy of the source. A mutation that is not found, or otherwise
//! than expected, that does not build, or that does not fit the source, is an error. Every `cargo test` checks that all of
//! them fit, and that each model has one. Whoever renames something in `src` renames it in the patches by the same `sed`;
//! line numbers do not matter.
//!
//! ```sh
//! scripts/mutants.sh models                # 37 mutations; also in .ci/run
//! scripts/mutants.sh simulation            # 45 mutations, about 6 minutes on two cores; not in .ci/run
//! scripts/mutants.sh simulation a-token    # those with such a name
//! ```
//!
//! # Faults
//!
//! The real server on a machine that fails. `tests/it/outside.rs` has the files, pipes, terminals and signals around the
//! process. `tests/it/faults.rs` needs a C compiler: a library that is preloaded makes calls of the C library fail or lie.
//! `tests/it/syscall_faults.rs` has strace make system calls fail, and a file system of its own that is full. Each ends with the server
//! stopped in order and its own comparison at 0.
//!
//! ```sh
//! cargo test --test it faults::                                   # needs a C compiler
//! cargo test --test it --features faults syscall_faults::         # needs strace, util-linux, and root or user namespaces
//! ```
//!
//! | fault | what happens | test |
//! |---|---|---|
//! | `accept`: `EMFILE`, `ENFILE`, `ENOMEM`, `ENOBUFS` | whoever knocks is told `resource_exhausted` with the spare fd, or waits; 100 ms of rest, one line in the log, no spinning | `syscall_faults::who_knocks…`, `who_finds…`, `limits`, `reasons` |
//! | `accept`: `ECONNABORTED`, `EINTR`, `EPROTO`, `ENETDOWN` | the next one is accepted at once | `syscall_faults::connections_that_fail…` |
//! | `epoll`: `EINTR` at every other wait | nothing | `syscall_faults::waits_that_are_interrupted…` |
//! | reads and writes of 3 bytes, every other one `EINTR` | nothing | `faults::calls_that_are_cut_short…` |
//! | a read or write of a connection: `EIO` | that channel leaves with `read_error` or `write_error` | `reasons::every_way_to_leave…` |
//! | a full file system | logins and messages for the absent get errno 19, those who are online chat on; with room again what was owed is written, once | `syscall_faults::a_full_file_system…` |
//! | the database's writes: `ENOSPC`, `EROFS`, `EIO`; its syncs: `EIO` | the same | `faults::while_the_disk_fails…` |
//! | a stop meanwhile | exit 1 and one line; the next start sets everybody offline | `faults::a_server_that_is_stopped…` |
//! | another process holds the database | the same errno 19 after 5 s; chats go on meanwhile; over by itself | `faults::while_another_process…` |
//! | a data directory that cannot be written, at the start | exit 1 and one line | `lifecycle::a_data_directory_that_cannot_be_written…` |
//! | garbage in the users' pages, at the start | exit 1 and one line | `faults::a_database_whose_users_are_spoilt…` |
//! | garbage in the boxes' pages | the owner's login gets errno 19, the log says that the file is damaged; the rest goes on | `faults::a_database_whose_boxes_are_spoilt…` |
//! | a row that another process's constraint forbids | after 10 s it is given up: in the log whole, counted in `writes_set_aside`; the user is offline | `faults::a_row_that_another_process_forbids…` |
//! | the wall clock jumps by 5 hours, forth and back | nobody leaves; the history keeps its order | `faults::steps_of_the_clock…` |
//! | the wall clock jumps by 20 days, or starts in 1970 or decades ahead | bans, tokens, boxes, the history and what is known of `seq` are as they were | `clocks::a_clock_that_steps…`, `clocks::a_server_that_starts…` |
//! | an older copy of the database is restored | numbers of messages and epochs rise all the same | `clocks::after_an_older_copy…` |
//! | epochs and times that another process has written, up to the largest integers | the server serves, numbers stay below 2^53 | `clocks::whatever_epochs…` |
//! | the database is deleted, moved away, replaced, overwritten | an error in the log, goodbyes, errno 19 meanwhile, exit 1; nothing is written into what is there | `lost::a_database_that_is_lost…` |
//! | a reader that does not end | the log grows, which is a metric and a warning; it is cut afterwards | `faults::the_size_of_the_databases_log…`, `store::checkpoint` |
//! | SIGSTOP for 3 s, SIGCONT | whoever spoke in time stays, whoever was silent leaves | `faults::whoever_spoke_in_time…` |
//! | stderr or stdout: a full pipe, a stopped terminal, a full disk, nobody, not open | the rest goes on; what is not written is counted in `log_dropped`, and said when stderr takes lines again | `outside::a_full_pipe_on_stderr…`, `a_terminal_that_is_stopped…`, `nobody_on_stdout…` |
//! | the service manager takes nothing | main goes on | `outside::a_service_manager…` |
//! | SIGTERM and SIGHUP at once, a hang-up, `nohup` | one orderly stop; one; nothing | `outside::signals_that_come_together…`, `a_hang_up…` |
//! | the control socket removed, the data directory moved away | it is made anew; the next server's socket is left alone | `outside::a_control_socket_that_is_gone…`, `a_server_whose_directory…` |
//! | a worker panics | exit 1 at once, the panic and one line on stderr; the next start says `server_crash` for whoever was online; what was answered is there | `faults::a_worker_that_panics…` |
//!
//! What these have found: time limits were judged before the input that lay waiting was read, so that a server that had
//! been stopped sent away those who had answered in time (`src/worker/hearing.rs`); and a write that the database itself
//! refuses kept everything behind it from being committed (`src/offline/aside.rs`).
//!
//! What they leave out: a ping that is being written in the very moment of the stop counts from before it. A message that
//! is given up after ten seconds is lost to its receiver: its text is in the log, which then holds what somebody wrote.
//! A panic of main or of an auth thread takes the same way as a worker's, but is not caused for real.
//!
//! # Holding out
//!
//! `scripts/soak.sh` loads one server with everything at once, round after round, and compares what it holds after two
//! thirds of the time and at the end: fds, channels, threads, memory, who is online, and what its own comparison has found.
//! `scripts/leaks.sh` is a short load under valgrind's memcheck.
//!
//! ```sh
//! scripts/soak.sh            # 10 minutes
//! scripts/soak.sh 3600       # an hour
//! scripts/leaks.sh
//! ```
//!
//! A run of 615 s on 2 cores: 31 rounds, 2,224,358 connections, 39,743,224 chats delivered, 2,227,581 kept, 14,881 kicks,
//! 83,088 takeovers, 1,080,032 resets. Fds 27 before and after, threads 9, nobody online, no channel left, 0 differences.
//! Memory was 68.6 MiB in the middle third and 67.7 in the last (medians): page caches fill in the first, and each sender's
//! last 1,024 chats with `seq` are remembered for ten minutes.
//!
//! Under valgrind: no block definitely or indirectly lost, and no error. Its reports of values that are not initialised are
//! switched off: in safe code the optimiser makes such branches itself, and memcheck shows one of them.
//!
//! The soak has found that a second run of `storm` or `keep` within minutes was taken for a repetition of the first: the
//! scenarios used the same `seq` again.
//!
//! # Fuzzing
//!
//! For everything that reads bytes from outside there is a property: a function that takes any input and panics where
//! the property does not hold. They are in `src/testing/properties`. libFuzzer drives them, and every `cargo test`
//! does with the inputs that are kept in `fuzz/corpus` and with some made at random from the words of the protocols.
//! An input is cut in several ways: not at all, at every byte, and at places that it decides itself.
//!
//! ```sh
//! scripts/fuzz.sh                  # each target for a minute
//! scripts/fuzz.sh channel 3600     # one for an hour
//! ```
//!
//! | target | of | what holds |
//! |---|---|---|
//! | `framing` | [`crate::protocol::framing`], [`crate::protocol::json::next_request`] | any split gives the requests that a framer of a few plain lines finds, each read in one pass as it is read on its own; less is kept than the limit, and no more than was sent |
//! | `request` | [`crate::protocol::request`], [`crate::protocol::chat_object`] | what is understood is what `serde_json` reads; a chat is delivered as one line, with its true sender and else unchanged, longer by a constant at most; complaints are bounded |
//! | `line` | [`crate::protocol::line`] | any split gives the lines that splitting at LF gives; what is written is one line without control characters, no longer than what was said |
//! | `control` | [`crate::admin::protocol`], [`crate::admin::target`] | a request reads back as the same from the line that it is written as; a refusal is one line of JSON, bounded by what was sent |
//! | `config` | [`crate::config`] | what is accepted is within its bounds; a complaint is one line; a duration reads back as the same |
//! | `channel` | [`crate::worker`], [`crate::main_loop`], [`crate::main_loop`] | after any bytes in any split, in either protocol, read or unread, then an end or a reset: the channel has left once, its session ended with one row, its fd is closed once, and table, registry and queue are empty; without a login any split gives the same answers, bounded by what was sent |
//!
//! `.ci/run` builds all targets without optimisation, and runs each for four seconds (`scripts/fuzz.sh quick`).
//!
//! What fuzzing leaves out: host names in addresses, for they would ask the network, and how the control socket cuts
//! its stream into lines, which is not apart from the socket.
//!
//! # Simulation
//!
//! A whole server (up to three workers, main, auth, control) and the devices of six users live in one thread. A seed
//! decides who acts next. A worker takes its mailbox, serves one channel or ends its turn; main takes some entries or
//! commits, and others go on between its commit and what it says then; one password is verified; the network brings
//! some bytes one way; a client does one thing; time passes; somebody is kicked; the disk fails, fills up, or is well
//! again; the server is killed and starts again on what was committed. No thread that has something to do is kept from
//! it for longer than 0.3 s, as no kernel would. It is in `src/testing/simulation`.
//!
//! Clients log in by password and by token, with the caps of their choice, also as somebody else and on several
//! connections at once, and by a token that was used before; they chat with and without `seq`, to users and to the group,
//! and repeat what was not answered; they confirm late, add friends, log out and in again in one breath, end their side,
//! reset, stop reading, or fall silent for ever. The network cuts both ways at any byte, and the kernel takes as little as
//! it likes. One seed in three has no trouble with disk and crashes, one has some, one much; one in four refuses a second
//! login.
//!
//! | looked at | what holds |
//! |---|---|
//! | after each step | every channel has departed once or is present; no name is given twice; a free name has a closed fd, one that is present an open one, no fd is closed twice, nor one of a kicked channel within the grace; whom the server ends was told goodbye; main's queue is bounded |
//! | after each commit | each session that began has ended with one row of the history, or its user is online; each row has a reason that something has happened for; boxes are bounded |
//! | whenever nothing is under way | those who are online in the database are those with a live channel |
//! | at rest | the reconciler finds nothing; who watches friends and takes what is written knows how they are |
//! | as bytes are written | a chat comes to its receivers alone, from its true sender, in the order of its connection; numbers rise, name one message, and a message has one; who does not confirm gets it once, but for a crash; what was confirmed does not come again, but for a crash; what comes again is marked; what was refused never comes; nothing is taken for a full box; a `seq` that was sent once is answered once; a token logs in once; what is told of a friend was so, is told once, and no friend is told to have gone who was back at once |
//! | at the end | whatever was answered with errno 0 was read by its receivers who confirm, and written to those who do not, but for the object that a broken connection has torn; on connections that lasted, or were ended in order, each `seq` was answered, and each chat without one came or was complained of; every fd is closed after the grace, and nothing is left of anybody |
//!
//! ```sh
//! cargo test --lib simulation               # the seeds of every test run, and that a seed is the same run twice
//! scripts/simulate.sh 3600                  # new seeds for an hour; the first that fails ends it, with its story
//! LINGER_SIM_SEED=34 scripts/simulate.sh    # that seed again, with its whole story
//! ```
//!
//! It ends with how much it has run. In the test profile, on two cores that others used too, that was 44,000 to 105,000
//! steps a second and 92 to 203 simulated hours a minute for every test run's 150 seeds (450,000 steps, 15.6 hours), and
//! 20,000 steps and 38 hours under a load of 9. The latest runs with new seeds, two at a time, 110 to
//! 170 s each: three ended with what they had found, after 457 to 4,164 seeds: the last fault below, and two rules of the
//! simulation itself that forgot sessions that come and go in one batch, which no row shows. Four ended well: 15,411
//! seeds, 46.2 million steps, 1,428 simulated hours, 6,155 of the seeds behind the last mending.
//! Most of the simulated time passes while everybody rests.
//!
//! It has found five faults of the server, which have tests of their own by now (`testing::whole`, `offline::tests`):
//!
//! - A login whose batch failed left a row of history when its channel had left in that batch.
//! - A login that was verified before main had heard of a logout on its channel took the place of the session before it,
//!   whose row and unsent messages were lost.
//! - Where a second login is refused, a login on the same channel ended its own session, and then lost its place to
//!   another connection that had waited for a look at it.
//! - While commits failed, messages of the box went out whose mark was not committed; after a crash they came again
//!   without it.
//! - A message that came between a login and its session's end, in a batch that failed, was saved under a number of an
//!   epoch that was not: the user's next message got the same number, and could not be kept.
//!
//! Reading what led to the last one showed a sixth, which no seed had met: of two logins of a batch that failed, the end of
//! one was taken off the list of owed writes when the other had begun the next transaction.
//!
//! What it leaves out: lines, registrations, bans, orderly stops and drains; a commit that fails and is there all the
//! same; memory and fds that run out; clocks that are set. Chats to the group without `seq` are checked for order, not
//! for loss; those to one user for loss only as the table says.
