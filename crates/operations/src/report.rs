//! `report`: a run as a page.

use std::path::PathBuf;

use anyhow::Result;
use requests::Report;
use serde::Serialize;

use crate::context::Context;

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Reported {
    /// Its file.
    pub page: PathBuf,
}

pub(crate) fn run(request: &Report, _: &Context<'_>) -> Result<Reported> {
    let page = request.out.clone().unwrap_or_else(|| request.run.join("report.html"));
    atomic::ensure_ours(&page, "a page of this program", ::report::is_page)?;
    atomic::write(&page, ::report::run_page(&request.run)?)?;
    Ok(Reported { page })
}
