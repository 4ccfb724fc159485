//! What friends are told when a user comes or goes, and when.

use crate::channel::{ChannelId, Reason};
use crate::ids::UserId;
use crate::main_loop::context::Policy;
use crate::main_loop::transaction::LATER_US;
use crate::message::event::Event;
use crate::message::request::Ask;
use crate::protocol::msgid::Msgid;
use crate::store::{FriendsGroups, Transactions};
use crate::testing::commons::{CAPACITY, PRESENCE_DELAY_US, policy};
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::words::{Said, asker, login};

/// What a channel was told of whom: online or not, and in which session.
type OnFailure = (ChannelId, UserId, bool, i64);

impl Desk {
    fn befriend(&mut self, user: UserId, friend: UserId) {
        let mut store = self.disk.beside();
        store.begin().unwrap();
        store.add_friend(user, friend).unwrap();
        store.commit().unwrap();
    }

    /// A login of a client with the cap, not yet committed.
    fn log_in_watching(&mut self, user: UserId) -> ChannelId {
        let channel = self.connect();
        let Ask::Login(mut login) = login(user, channel) else { unreachable!("it is a login") };
        login.caps.presence = true;
        self.ask(Ask::Login(login));
        channel
    }

    fn watching(&mut self, user: UserId) -> Online {
        let channel = self.log_in_watching(user);
        self.finish();
        self.heard(channel);
        Online { user, channel, session: self.session(channel).expect("the login is granted") }
    }

    /// A user who watches a friend; the friend is offline.
    fn watcher_of(&mut self, name: &str, friend: UserId) -> Online {
        let user = self.user(name);
        self.befriend(user, friend);
        self.watching(user)
    }

    /// Takes what watchers were told since the last look.
    fn told(&self) -> Vec<OnFailure> {
        self.drain.presence.check_invariants();
        let event = |notice: crate::message::presence::Notice| {
            (notice.to, notice.event.user, notice.event.online, notice.event.epoch.0)
        };
        self.letters.notices().into_iter().map(event).collect()
    }

    /// The user's session ends, settled and committed.
    fn leave(&mut self, who: Online, reason: Reason) {
        self.send_away(who, reason);
        self.settle(who, vec![]);
        self.finish_all();
    }
}

fn without_delay() -> Desk {
    Desk::with(Policy { presence_delay_us: 0, ..policy() }, CAPACITY, Disk::default())
}

#[test]
fn a_friend_who_comes_is_told_once_the_login_is_committed_and_never_before() {
    let mut desk = Desk::new();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let channel = desk.connect();
    desk.log_in(bob, channel);
    assert_eq!(desk.told(), []);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    assert_eq!(desk.told(), [], "the session never was");
    desk.enter(bob);
    assert_eq!(desk.told(), [(ann.channel, bob, true, 1)]);
}

#[test]
fn an_end_is_told_when_nobody_is_back_after_the_delay_whatever_its_reason() {
    for reason in [Reason::PeerReset, Reason::PeerClosed, Reason::Kicked] {
        let mut desk = Desk::new();
        let bob = desk.user("bob");
        let ann = desk.watcher_of("ann", bob);
        let online = desk.enter(bob);
        assert_eq!(desk.told(), [(ann.channel, bob, true, 1)]);
        desk.leave(online, reason);
        desk.pass_us(PRESENCE_DELAY_US - 1);
        assert_eq!(desk.told(), []);
        assert_eq!(desk.drain.timeout_us(), Some(1), "main wakes for it");
        desk.pass_us(1);
        assert_eq!(desk.told(), [(ann.channel, bob, false, 1)], "{reason:?}");
        desk.pass_us(PRESENCE_DELAY_US);
        assert_eq!(desk.told(), []);
    }
}

#[test]
fn a_logout_is_held_back_like_any_other_end() {
    let mut desk = Desk::new();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let online = desk.enter(bob);
    desk.told();
    desk.log_out(online);
    desk.settle(online, vec![]);
    desk.finish_all();
    assert_eq!(desk.told(), []);
    desk.pass_us(PRESENCE_DELAY_US);
    assert_eq!(desk.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn an_end_is_never_told_before_it_is_committed() {
    let mut desk = without_delay();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let online = desk.enter(bob);
    desk.told();
    desk.disk.set_full(true);
    desk.leave(online, Reason::PeerClosed);
    desk.pass_us(PRESENCE_DELAY_US);
    assert!(desk.is_online(bob));
    assert_eq!(desk.told(), []);
    desk.disk.set_full(false);
    desk.pass_us(1);
    assert!(!desk.is_online(bob));
    assert_eq!(desk.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn whoever_is_back_in_time_was_never_away_but_for_those_who_logged_in_meanwhile() {
    let mut desk = Desk::new();
    let bob = desk.user("bob");
    desk.watcher_of("ann", bob);
    let online = desk.enter(bob);
    desk.told();
    desk.leave(online, Reason::PeerReset);
    desk.pass_us(PRESENCE_DELAY_US / 2);
    // Her login answer says that he is offline.
    let eve = desk.watcher_of("eve", bob);
    desk.enter(bob);
    assert_eq!(desk.told(), [(eve.channel, bob, true, 2)]);
    assert_eq!(desk.commons.metrics.presence_spared.value(), 1);
    desk.pass_us(PRESENCE_DELAY_US);
    assert_eq!(desk.told(), [], "the delay of the session before means nothing any more");
}

#[test]
fn whoever_logs_in_during_the_delay_is_not_told_again_that_the_friend_is_offline() {
    let mut desk = Desk::new();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let online = desk.enter(bob);
    desk.told();
    desk.leave(online, Reason::PeerReset);
    desk.watcher_of("eve", bob);
    desk.pass_us(PRESENCE_DELAY_US);
    assert_eq!(desk.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn a_login_that_fails_does_not_count_as_being_back() {
    let mut desk = Desk::new();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let online = desk.enter(bob);
    desk.told();
    desk.leave(online, Reason::PeerReset);
    let channel = desk.connect();
    desk.log_in(bob, channel);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    desk.pass_us(PRESENCE_DELAY_US);
    assert_eq!(desk.told(), [(ann.channel, bob, false, 1)]);
}

#[test]
fn a_takeover_shows_nothing_even_without_a_delay() {
    let mut desk = without_delay();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let old = desk.enter(bob);
    desk.told();
    let channel = desk.connect();
    desk.log_in(bob, channel);
    desk.finish_all();
    assert!(desk.heard(old.channel).contains(&Said::Leave(Reason::Replaced)));
    assert!(desk.session(channel).is_none(), "it waits for the report");
    assert_eq!(desk.told(), []);
    desk.settle(old, vec![]);
    desk.finish_all();
    let new = Online { user: bob, channel, session: desk.session(channel).expect("it has taken over") };
    desk.pass_us(PRESENCE_DELAY_US);
    assert_eq!(desk.told(), []);
    desk.leave(new, Reason::PeerClosed);
    assert_eq!(desk.told(), [(ann.channel, bob, false, 2)], "the epoch is that of the session that ended");
}

#[test]
fn an_end_names_the_epoch_in_which_the_session_went_on() {
    let mut desk = Desk::new();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    let online = desk.enter(bob);
    desk.told();
    desk.drain.users.find(bob).unwrap().go_on_in_next_epoch(0);
    desk.leave(online, Reason::PeerClosed);
    desk.pass_us(PRESENCE_DELAY_US);
    assert_eq!(desk.told(), [(ann.channel, bob, false, 2)]);
}

#[test]
fn logins_and_ends_in_one_batch_leave_watchers_with_what_is_true_after_it() {
    let mut desk = without_delay();
    let [bob, carl, dora] = ["bob", "carl", "dora"].map(|name| desk.user(name));
    let ann = desk.user("ann");
    for friend in [bob, carl, dora] {
        desk.befriend(ann, friend);
    }
    let dora = desk.enter(dora);
    // Bob comes before her, Carl after her and goes again, Dora goes after her.
    let channel = desk.connect();
    desk.log_in(bob, channel);
    let watching = desk.log_in_watching(ann);
    let channel = desk.connect();
    desk.log_in(carl, channel);
    let session = desk.session(channel).expect("granted, though not committed");
    desk.send_away(Online { user: carl, channel, session }, Reason::PeerClosed);
    desk.send_away(dora, Reason::PeerClosed);
    desk.finish_all();
    assert_eq!(desk.told(), [(watching, dora.user, false, 1)]);
}

#[test]
fn a_friend_added_during_the_session_is_watched_once_that_is_committed() {
    let mut desk = without_delay();
    let [ann, bob] = ["ann", "bob"].map(|name| desk.user(name));
    let ann = desk.watching(ann);
    let online = desk.enter(bob);
    let add = |desk: &mut Desk| {
        desk.ask(Ask::AddFriend {
            asker: asker(ann.channel, Msgid::AddFriend, None),
            user: ann.user,
            friend: bob,
        });
    };
    add(&mut desk);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    desk.leave(online, Reason::PeerClosed);
    assert_eq!(desk.told(), [], "he was not added");
    let online = desk.enter(bob);
    assert_eq!(desk.told(), []);
    add(&mut desk);
    add(&mut desk);
    desk.finish_all();
    assert_eq!(desk.told(), [], "adding somebody is not his coming");
    desk.leave(online, Reason::PeerClosed);
    assert_eq!(desk.told(), [(ann.channel, bob, false, 2)]);
    desk.enter(bob);
    assert_eq!(desk.told(), [(ann.channel, bob, true, 3)]);
}

#[test]
fn a_friend_who_comes_in_the_batch_in_which_he_is_added_is_told() {
    let mut desk = Desk::new();
    let [ann, bob] = ["ann", "bob"].map(|name| desk.user(name));
    let ann = desk.watching(ann);
    desk.ask(Ask::AddFriend {
        asker: asker(ann.channel, Msgid::AddFriend, None),
        user: ann.user,
        friend: bob,
    });
    desk.enter(bob);
    assert_eq!(desk.told(), [(ann.channel, bob, true, 1)]);
}

#[test]
fn a_friend_who_goes_in_the_batch_in_which_he_is_added_is_told() {
    let mut desk = without_delay();
    let [ann, bob] = ["ann", "bob"].map(|name| desk.user(name));
    let (ann, bob) = (desk.watching(ann), desk.enter(bob));
    desk.ask(Ask::AddFriend {
        asker: asker(ann.channel, Msgid::AddFriend, None),
        user: ann.user,
        friend: bob.user,
    });
    desk.leave(bob, Reason::PeerClosed);
    assert_eq!(desk.told(), [(ann.channel, bob.user, false, 1)]);
}

#[test]
fn only_sessions_with_the_cap_are_told_and_nobody_of_himself() {
    let mut desk = without_delay();
    let [ann, bob] = ["ann", "bob"].map(|name| desk.user(name));
    desk.befriend(ann, bob);
    desk.befriend(bob, bob);
    let plain = desk.enter(ann);
    desk.ask(Ask::AddFriend { asker: asker(plain.channel, Msgid::AddFriend, None), user: ann, friend: bob });
    let online = desk.watching(bob);
    desk.leave(online, Reason::PeerClosed);
    assert_eq!(desk.told(), []);
}

#[test]
fn nothing_is_told_to_a_session_that_is_over_and_the_next_one_is_told_on_its_own_channel() {
    let mut desk = without_delay();
    let bob = desk.user("bob");
    let ann = desk.watcher_of("ann", bob);
    desk.leave(ann, Reason::PeerClosed);
    let online = desk.enter(bob);
    assert_eq!(desk.told(), []);
    // A login that is undone watches nobody either.
    let undone = desk.log_in_watching(ann.user);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    desk.leave(online, Reason::PeerClosed);
    assert_eq!(desk.told(), []);
    assert!(desk.session(undone).is_none());
    let again = desk.watching(ann.user);
    desk.enter(bob);
    assert_eq!(desk.told(), [(again.channel, bob, true, 2)]);
}

#[test]
fn a_stop_tells_nobody_that_others_go_and_does_not_wait_for_a_delay() {
    for delay_us in [0, PRESENCE_DELAY_US] {
        let mut desk =
            Desk::with(Policy { presence_delay_us: delay_us, ..policy() }, CAPACITY, Disk::default());
        let [bob, carl] = ["bob", "carl"].map(|name| desk.user(name));
        let ann = desk.user("ann");
        desk.befriend(ann, bob);
        desk.befriend(ann, carl);
        let (bob, carl) = (desk.enter(bob), desk.enter(carl));
        let ann = desk.watching(ann);
        desk.send_away(carl, Reason::PeerClosed);
        desk.take(Event::Stop);
        desk.take(Event::Quiet);
        desk.finish_all();
        for gone in [ann, bob, carl] {
            desk.settle(gone, vec![]);
            desk.commons.table.note_gone();
        }
        desk.finish_all();
        assert_eq!(desk.told(), []);
        for channel in desk.commons.table.occupants().collect::<Vec<_>>() {
            desk.take(Event::HandBack { channel, socket: None, torn: None });
        }
        desk.finish_all();
        assert_eq!(desk.told(), []);
        assert!(!desk.drain.is_finished(), "the history has to be completed");
        desk.pass_us(LATER_US);
        assert!(desk.drain.is_finished());
    }
}
