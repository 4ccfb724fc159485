//! The table of docs/performance.md: what the server costs, beside other relays where they are installed, and a picture of it.
//!
//! `scripts/bench` runs it. Without `--bench`, as in `cargo test -p linger-benches --bench table`, it only shows that it
//! runs. Figures are CPU time of the server per unit of work: on a busy machine they say more than rates.
//!
//! | module | duty |
//! |---|---|
//! | `process` | the servers |
//! | `protocol` | the messages of clients, in three protocols |
//! | `client_pool` | many clients in one thread |
//! | `load` | what is done to a server |
//! | `measure` | the rows, one after another |
//! | `rows`, `draw` | the table and the picture |

mod client_pool;
mod draw;
mod load;
mod measure;
mod process;
mod protocol;
mod rows;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use measure::{Measure, Sizes};

/// Measures the server and draws the result.
#[derive(Debug, Parser)]
struct Args {
    /// Where the picture goes; nothing is drawn without.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Threads of every server [default: number of cores].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Only the rows whose name has this word in it, and no curves.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,

    /// Everything once, small and short.
    #[arg(long)]
    test: bool,

    /// What cargo says when it is asked to measure.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let is_short = args.test || !args.bench;
    let sizes = if is_short { Sizes::short() } else { Sizes::full() };
    let cores = std::thread::available_parallelism().context("cannot count cores")?.get();
    let measure = Measure::new(sizes, args.threads.unwrap_or(cores))?;
    let rows = measure.rows(args.only.as_deref());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", rows::markdown(&rows))?;
    if args.only.is_none() {
        let curves = measure.curves();
        for curve in &curves {
            let points = curve.points.iter().map(|(channels, us)| format!("{channels}: {us:.2}"));
            writeln!(
                stdout,
                "{}, µs per chat by channels: {}",
                curve.name,
                points.collect::<Vec<_>>().join(", ")
            )?;
        }
        // A short run shows that it can draw, too, and spoils no picture.
        let file = if is_short { Some(measure::scratch().join("bench.svg")) } else { args.svg };
        if let Some(file) = &file {
            let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
            draw::draw(file, &format!("Linger, {date}, {cores} cores"), &curves, &rows)?;
            writeln!(stdout, "drawn: {}", file.display())?;
        }
    }
    // What fails in a short run is a fault of the program, not of the machine.
    let failures = measure.failures();
    anyhow::ensure!(!is_short || failures == 0, "{failures} measurements failed");
    Ok(())
}
