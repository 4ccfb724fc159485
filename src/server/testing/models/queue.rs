//! The offline queue: `offline_queue::queue`.

use super::{model, spawn};
use crate::channel::ChannelId;
use crate::message::event::Event;
use crate::message::reply_to::ReplyTo;
use crate::message::request::Ask;
use crate::offline_queue::queue::ASKS_MAX;
use crate::offline_queue::queue::OfflineQueue;
use crate::protocol::msgid::Msgid;
use crate::sync::Arc;
use std::time::Duration;

/// Longer than any order takes. Loom knows no time: there a wake-up that is lost is a deadlock, and fails.
const PATIENCE: Duration = Duration::from_mins(1);

const CHANNEL: ChannelId = ChannelId { slot: 0, generation: 1 };

/// The queue; a socket is a number here.
type Queue = Arc<OfflineQueue<u8>>;

fn socket(number: u8) -> Event<u8> {
    Event::HandBack { channel: CHANNEL, socket: Some(number), partial: None }
}

fn ask() -> Ask {
    Ask::Fence { reply_to: ReplyTo { channel: CHANNEL, re: Msgid::Logout, seq: None } }
}

/// Takes one entry as main does: it waits only when it finds nothing.
fn next(queue: &Queue) -> Event<u8> {
    let mut taken = Vec::new();
    loop {
        queue.pop_batch(1, &mut taken);
        match taken.pop() {
            Some(entry) => return entry,
            None => queue.wait(Some(PATIENCE), Duration::ZERO),
        }
    }
}

fn number(entry: &Event<u8>) -> u8 {
    match entry {
        Event::HandBack { socket: Some(number), .. } => *number,
        other => panic!("a socket was pushed, not {other:?}"),
    }
}

/// Main goes to wait while somebody pushes: it gets the entry, whichever way it was pushed.
fn wakes(push: fn(&Queue)) {
    model(move || {
        let queue = Queue::default();
        let pusher = {
            let queue = Arc::clone(&queue);
            spawn(move || push(&queue))
        };
        next(&queue);
        pusher.join().unwrap();
        assert!(queue.is_empty());
    });
}

/// A departure that is pushed while main goes to wait wakes it.
#[test]
fn a_push_wakes_main() {
    wakes(|queue| queue.push(socket(1)));
}

/// What a worker tells at the end of its turn while main goes to wait wakes it.
#[test]
fn a_push_of_many_wakes_main() {
    wakes(|queue| queue.push_all(&mut vec![socket(1)], &mut Vec::new()));
}

/// What an auth thread asks while main goes to wait wakes it.
#[test]
fn an_ask_wakes_main() {
    wakes(|queue| queue.ask(ask()).unwrap());
}

/// Main rests, and ends alone do not wake it. Whatever else is pushed does, behind an end too.
#[test]
fn what_presses_wakes_main_that_rests() {
    model(|| {
        let queue = Queue::default();
        let worker = {
            let queue = Arc::clone(&queue);
            spawn(move || queue.push(socket(1)))
        };
        let control = {
            let queue = Arc::clone(&queue);
            spawn(move || queue.push(Event::Stop))
        };
        let mut taken = Vec::new();
        while !taken.iter().any(Event::is_pressing) {
            queue.wait(Some(PATIENCE), PATIENCE);
            queue.pop_batch(2, &mut taken);
        }
        worker.join().unwrap();
        control.join().unwrap();
    });
}

/// Main takes everything that several threads push, though each push saves the wake-up that another has made.
#[test]
fn main_that_waits_for_several_gets_them_all() {
    model(|| {
        let queue = Queue::default();
        let pushers: Vec<_> = (0..2)
            .map(|number| {
                let queue = Arc::clone(&queue);
                spawn(move || queue.push(socket(number)))
            })
            .collect();
        let mut numbers = [number(&next(&queue)), number(&next(&queue))];
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1]);
        for pusher in pushers {
            pusher.join().unwrap();
        }
    });
}

/// Entries of one thread come out in its order, those pushed at once side by side, each exactly once.
#[test]
fn entries_of_one_thread_keep_their_order() {
    model(|| {
        let queue = Queue::default();
        let worker = {
            let queue = Arc::clone(&queue);
            spawn(move || queue.push_all(&mut vec![socket(1), socket(2)], &mut Vec::new()))
        };
        let control = {
            let queue = Arc::clone(&queue);
            spawn(move || {
                queue.push(socket(11));
                queue.push(socket(12));
            })
        };
        let taken: Vec<u8> = (0..4).map(|_| number(&next(&queue))).collect();
        let at = |number| taken.iter().position(|taken| *taken == number).expect("it was pushed");
        assert_eq!(at(2), at(1) + 1, "{taken:?}");
        assert!(at(11) < at(12), "{taken:?}");
        worker.join().unwrap();
        control.join().unwrap();
    });
}

/// Two ask when one place is left: one is refused, and what has its place reserved comes in all the same. A taken ask
/// gives its place back.
#[test]
fn the_last_place_for_asks_is_given_once_and_ends_need_none() {
    model(|| {
        let queue = Queue::default();
        for _ in 1..ASKS_MAX {
            queue.ask(ask()).unwrap();
        }
        let auth = {
            let queue = Arc::clone(&queue);
            spawn(move || queue.ask(ask()).is_ok())
        };
        let mut refused = Vec::new();
        queue.push_all(&mut vec![Event::Ask(ask()), socket(1)], &mut refused);
        assert_ne!(auth.join().unwrap(), refused.is_empty(), "one of them has it");
        assert_eq!(queue.len(), ASKS_MAX + 1);
        next(&queue);
        assert!(queue.ask(ask()).is_ok());
        assert!(queue.ask(ask()).is_err());
    });
}
