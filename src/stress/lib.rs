//! Load and faults against a running server, from outside, with a verdict.
//!
//! A scenario plays clients over TCP, asks the control socket and reads the database. It shares no code with the server, so
//! that a mistake there cannot hide itself here. Everything runs in the calling thread, except: `kick` asks for kicks from
//! a second thread, `storm` and `flood` run the steady load in a thread beside their own work and kick from a third, and
//! some receivers of `chaos` are processes.
//!
//! | module | duty |
//! |---|---|
//! | `scenario`, `args` | scenarios and their options |
//! | `client` | the messages of a client |
//! | `poller`, `client_pool` | epoll, and many clients in one thread |
//! | `login` | logs all clients of a pool in |
//! | `control`, `probe` | the control socket; the server as seen from outside |
//! | `postconditions` | what must be true after clients have left |
//! | `vanish`, `kick`, `churn`, `relay`, `keep`, `storm`, `chaos`, `flood` | the scenarios |
//! | `steady_load` | clients that must not be affected by what else happens |
//! | `managed_server` | a server that the scenario starts itself |
//! | `close_mix`, `payload`, `rng` | how clients close, the text of a chat, random numbers from a seed |
//! | `report`, `error`, `progress` | figures and verdict, errors and failures, progress on the terminal |

mod args;
mod chaos;
mod churn;
mod client;
mod client_pool;
mod close_mix;
mod control;
mod error;
mod flood;
mod keep;
mod kick;
mod login;
mod managed_server;
#[cfg(test)]
mod mock_server;
mod payload;
mod poller;
mod postconditions;
mod probe;
mod progress;
mod relay;
mod report;
mod rng;
mod scenario;
mod steady_load;
mod storm;
#[cfg(test)]
mod tests;
mod vanish;

use std::io::Write;

pub use args::{ChurnArgs, Common, How, KeepArgs, KickArgs, RelayArgs, StormArgs, VanishArgs};
pub use chaos::{ChaosArgs, ReceiveArgs};
pub use error::{Failure, StressError};
pub use flood::FloodArgs;
pub use report::Verdict;
pub use scenario::{Args, Scenario};

use login::Names;
use probe::Probe;
use progress::Progress;
use report::Report;

/// Runs the scenario and prints what it found on stdout. The verdict says whether the server did right.
///
/// # Errors
/// When the scenario could not be carried through; nothing about the server is shown by that.
pub fn run(args: &Args) -> Result<Verdict, StressError> {
    let (report, json) = (examine(args)?, args.scenario.parts().1.json);
    print(&report, json).map_err(StressError::Report)?;
    Ok(report.into_verdict())
}

fn examine(args: &Args) -> Result<Report, StressError> {
    let (name, common) = args.scenario.parts();
    let names = Names(format!("{}-{name}-", common.prefix));
    let probe = || Probe::open(&common.data, &names.0);
    let mut progress = Progress::new(common.json);
    let mut report = Report::new(name);
    match &args.scenario {
        Scenario::Vanish(args) => vanish::run(args, &probe()?, &names, &mut progress, &mut report),
        Scenario::Churn(args) => churn::run(args, &probe()?, &names, &mut progress, &mut report),
        Scenario::Kick(args) => kick::run(args, &probe()?, &names, &mut progress, &mut report),
        Scenario::Relay(args) => relay::run(args, &probe()?, &names, &mut progress, &mut report),
        Scenario::Keep(args) => keep::run(args, &probe()?, &names, &mut progress, &mut report),
        Scenario::Storm(args) => storm::run(args, &probe()?, &names, &mut progress, &mut report),
        // It may have to start the server first, and looks at nothing but its clients.
        Scenario::Chaos(args) => chaos::run(args, &names, &mut progress, &mut report),
        // The same.
        Scenario::Flood(args) => flood::run(args, &names, &mut progress, &mut report),
        Scenario::Receive(args) => chaos::run_receiver(args),
    }?;
    Ok(report)
}

/// A bad verdict is a failure, and stdout stays empty on failure where it was asked for JSON.
fn print(report: &Report, json: bool) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    match json {
        true if report.failures.is_empty() => writeln!(stdout, "{}", report.json())?,
        true => {}
        false => write!(stdout, "{}", report.table())?,
    }
    stdout.flush()
}
