//! The page of a run, on standard output: `cargo run -p attndreambooth-report --example page -- RUN > report.html`.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let Some(run) = std::env::args_os().nth(1).map(PathBuf::from) else {
        println!("give the folder of a run");
        return Ok(());
    };
    print!("{}", report::run_page(&run)?);
    Ok(())
}
