//! The ledger of a run, the verdict, and the story of what went wrong. It judges only; nothing is done any more.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::crowd::Crowd;
use super::hand::Targets;
use super::ledger::{Finding, Wrong};
use crate::fault::Failure;
use crate::report::Report;

/// Chats of one kind whose story is told.
const STORIES: usize = 5;

/// Blows that are told with a story: those within this time before or after.
const STORY_SPAN: Duration = Duration::from_secs(1);

/// Something that was done, and to whom; none for the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) at: Duration,
    pub(super) who: Option<usize>,
    pub(super) what: &'static str,
}

/// A run that is over.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) seed: u64,
    pub(super) targets: Targets,
    pub(super) crowd: &'a Crowd,
    /// What the hand did, oldest first.
    pub(super) done: &'a [Done],
    /// How long it took until all had come to rest; none where it did not.
    pub(super) quiet: Option<Duration>,
}

impl Outcome<'_> {
    /// The ledger and the verdict.
    pub(super) fn tell(&self, report: &mut Report) {
        let counts = self.crowd.ledger.counts;
        let findings = self.crowd.ledger.judge();
        let mut blows = BTreeMap::new();
        for Done { what, .. } in self.done {
            *blows.entry((*what).to_owned()).or_insert(0) += 1;
        }
        report.count("seed", self.seed);
        report.count("senders", self.targets.senders as u64);
        report.count("receivers", self.targets.receivers as u64);
        report.count("processes_among_them", self.targets.processes as u64);
        report.counts("blows", blows);
        report.counts("goodbyes", self.crowd.troubles.goodbyes.clone());
        report.count("sent", counts.sent);
        report.count("confirmed_to_senders", counts.accepted);
        report.count("refused", counts.refused);
        report.count("given_up", counts.given_up);
        report.count("repeated", counts.repeated);
        report.count("received", counts.received);
        report.count("marked_again", counts.marked);
        report.count("dropped_by_number", counts.dropped);
        report.count("taken", counts.taken);
        let count = |wrong| findings.iter().filter(|finding| finding.wrong == wrong).count() as u64;
        report.count("missing", count(Wrong::Missing));
        report.count("doubled", count(Wrong::Doubled));
        report.count("out_of_order", count(Wrong::Overtaken) + count(Wrong::Lowered));
        report.took("all_quiet_after", self.quiet);
        self.judge(&findings, report);
    }

    fn judge(&self, findings: &[Finding], report: &mut Report) {
        for same in findings.chunk_by(|one, other| one.wrong == other.wrong) {
            for finding in same.iter().take(STORIES) {
                report.story(self.story(finding));
            }
            report.fail(Failure::Ledger {
                count: same.len(),
                wrong: said(same[0].wrong),
                seed: self.seed,
                example: self.crowd.ledger.story(&same[0]),
            });
        }
        let troubles = &self.crowd.troubles;
        if troubles.errors.0 > 0 {
            let (count, example) = troubles.errors.clone();
            report.fail(Failure::Errors { count, example });
        }
        if troubles.refused_logins.0 > 0 {
            let (count, example) = troubles.refused_logins.clone();
            report.fail(Failure::Refused { count, example });
        }
        if troubles.unprovoked.0 > 0 {
            let (count, example) = troubles.unprovoked.clone();
            report.fail(Failure::Unprovoked { count, example });
        }
        if troubles.unanswered_logins > 0 {
            report.fail(Failure::NoAnswer(troubles.unanswered_logins));
        }
        if self.quiet.is_none() && report.failures.is_empty() {
            report.fail(Failure::NoRest);
        }
        if self.crowd.ledger.counts.taken == 0 {
            report.fail(Failure::Nothing);
        }
    }

    /// What the ledger says of a chat, and what was done to its two sides around that time.
    fn story(&self, finding: &Finding) -> String {
        let mut story = self.crowd.ledger.story(finding);
        let sides = [finding.key.sender, self.targets.senders + finding.key.receiver];
        let concerns = |done: &&Done| done.who.is_none_or(|who| sides.contains(&who));
        let is_near = |done: &&Done| done.at.abs_diff(finding.at) < STORY_SPAN;
        for Done { at, who, what } in self.done.iter().filter(concerns).filter(is_near) {
            let whom = match who {
                None => "the server",
                Some(who) if *who == sides[0] => "the sender",
                Some(_) => "the receiver",
            };
            let _ = write!(story, "\n      {:.3} s: {what} ({whom})", at.as_secs_f64());
        }
        story
    }
}

/// What a chat has done that no chat may do.
fn said(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::Missing => "confirmed to their senders and never received",
        Wrong::Doubled => "received under two numbers",
        Wrong::Overtaken => "received out of order",
        Wrong::Lowered => "received under a number below one before",
        Wrong::Unmarked => "received again without the mark",
        Wrong::Uncalled => "received although refused, damaged or somebody else's",
        Wrong::Unanswered => "without an answer to the end",
        Wrong::Forgotten => "confirmed by their receivers and received once more",
    }
}
