//! `report`: a run as a page.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

/// Write a run as one HTML page: configuration, curves, pictures, scores, attention, whatever there is.
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// The folder of a training run, finished or not
    #[arg(long)]
    run: PathBuf,
    /// The file to write; report.html in the run's folder if not given
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Report {
    pub(crate) fn run(self) -> Result<()> {
        let out = self.out.unwrap_or_else(|| self.run.join("report.html"));
        atomic::ensure_ours(&out, "a page of this program", report::is_page)?;
        let page = report::run_page(&self.run)?;
        atomic::write(&out, page)?;
        terminal::say!("{}", out.display());
        Ok(())
    }
}
