//! The `linger` command: exit codes only.

use std::process::ExitCode;

fn main() -> ExitCode {
    match linger::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code())
        }
    }
}
