//! The figures of a run, the verdict, and examples of violations. It runs after the run and changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::checker::{Finding, Violation};
use super::clients::Clients;
use super::fault_injector::Targets;
use crate::error::Failure;
use crate::report::Report;

/// Examples that are shown for each kind of violation.
const EXAMPLES: usize = 5;

/// An example shows the faults within this time before and after.
const EXAMPLE_SPAN: Duration = Duration::from_secs(1);

/// A fault that had an effect, and its client; none for the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct InjectedFault {
    pub(super) at: Duration,
    pub(super) who: Option<usize>,
    pub(super) what: &'static str,
}

/// A run that is over.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) seed: u64,
    pub(super) targets: Targets,
    pub(super) clients: &'a Clients,
    /// The faults that had an effect, oldest first.
    pub(super) injected: &'a [InjectedFault],
    /// How long it took until everything had arrived; none where something did not.
    pub(super) quiet: Option<Duration>,
}

impl Outcome<'_> {
    /// Reports figures and verdict.
    pub(super) fn report(&self, report: &mut Report) {
        let counts = self.clients.checker.counts;
        let findings = self.clients.checker.judge();
        let mut faults = BTreeMap::new();
        for InjectedFault { what, .. } in self.injected {
            *faults.entry((*what).to_owned()).or_insert(0) += 1;
        }
        report.count("seed", self.seed);
        report.count("senders", self.targets.senders as u64);
        report.count("receivers", self.targets.receivers as u64);
        report.count("processes_among_them", self.targets.processes as u64);
        report.counts("blows", faults);
        report.counts("goodbyes", self.clients.problems.goodbyes.clone());
        report.count("sent", counts.sent);
        report.count("confirmed_to_senders", counts.accepted);
        report.count("refused", counts.refused);
        report.count("given_up", counts.given_up);
        report.count("repeated", counts.repeated);
        report.count("received", counts.received);
        report.count("marked_again", counts.marked);
        report.count("dropped_by_number", counts.dropped);
        report.count("taken", counts.taken);
        let count =
            |violation| findings.iter().filter(|finding| finding.violation == violation).count() as u64;
        report.count("missing", count(Violation::Missing));
        report.count("doubled", count(Violation::Doubled));
        report.count("out_of_order", count(Violation::Overtaken) + count(Violation::Lowered));
        report.took("all_quiet_after", self.quiet);
        self.judge(&findings, report);
    }

    fn judge(&self, findings: &[Finding], report: &mut Report) {
        for same in findings.chunk_by(|one, other| one.violation == other.violation) {
            for finding in same.iter().take(EXAMPLES) {
                report.detail(self.describe(finding));
            }
            report.fail(Failure::Chats {
                count: same.len(),
                violation: description(same[0].violation),
                seed: self.seed,
                example: self.clients.checker.describe(&same[0]),
            });
        }
        let problems = &self.clients.problems;
        if problems.errors.0 > 0 {
            let (count, example) = problems.errors.clone();
            report.fail(Failure::Errors { count, example });
        }
        if problems.refused_logins.0 > 0 {
            let (count, example) = problems.refused_logins.clone();
            report.fail(Failure::Refused { count, example });
        }
        if problems.unprovoked.0 > 0 {
            let (count, example) = problems.unprovoked.clone();
            report.fail(Failure::Unprovoked { count, example });
        }
        if problems.unanswered_logins > 0 {
            report.fail(Failure::NoAnswer(problems.unanswered_logins));
        }
        if self.quiet.is_none() && report.failures.is_empty() {
            report.fail(Failure::NotQuiet);
        }
        if self.clients.checker.counts.taken == 0 {
            report.fail(Failure::Nothing);
        }
    }

    /// What the checker knows of a chat, and the faults of its sender and receiver around that time.
    fn describe(&self, finding: &Finding) -> String {
        let mut describe = self.clients.checker.describe(finding);
        let sides = [finding.key.sender, self.targets.senders + finding.key.receiver];
        let concerns = |done: &&InjectedFault| done.who.is_none_or(|who| sides.contains(&who));
        let is_near = |done: &&InjectedFault| done.at.abs_diff(finding.at) < EXAMPLE_SPAN;
        for InjectedFault { at, who, what } in self.injected.iter().filter(concerns).filter(is_near) {
            let whom = match who {
                None => "the server",
                Some(who) if *who == sides[0] => "the sender",
                Some(_) => "the receiver",
            };
            let _ = write!(describe, "\n      {:.3} s: {what} ({whom})", at.as_secs_f64());
        }
        describe
    }
}

/// What a chat has done that no chat may do.
fn description(violation: Violation) -> &'static str {
    match violation {
        Violation::Missing => "confirmed to their senders and never received",
        Violation::Doubled => "received under two numbers",
        Violation::Overtaken => "received out of order",
        Violation::Lowered => "received under a number below one before",
        Violation::Unmarked => "received again without the mark",
        Violation::Unexpected => "received although refused, damaged or somebody else's",
        Violation::Unanswered => "without an answer to the end",
        Violation::Forgotten => "confirmed by their receivers and received once more",
    }
}
