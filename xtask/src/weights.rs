//! `cargo xtask weights`, without the program: [`hub`] with a bar for each file on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, stderr};
use std::ops::ControlFlow;
use std::time::Duration;

use hub::{Hub, Progress, Verdict, size};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use requests::{Weights, WeightsAction};

use crate::workspace;

pub(crate) fn run(request: Weights) -> anyhow::Result<()> {
    let mut hub = Hub::from_env()?.with_models(request.dir);
    if let Some(manifest) = &request.manifest {
        hub = hub.with_manifest(manifest)?;
    }
    match request.action {
        WeightsAction::List => {
            for listed in hub.list()? {
                let (model, total) = (listed.model, listed.model.files.len());
                let folder = workspace::display(&listed.folder);
                let state = match listed.present {
                    0 => "not here".to_owned(),
                    all if all == total => format!("in {folder}"),
                    some => format!("{some} of {total} files in {folder}"),
                };
                let bytes = size(model.files.iter().filter_map(|file| file.size).sum());
                terminal::output!("{:<18} {bytes:>8}  {}; {}; {state}", model.name, model.title, model.licence.name);
            }
            Ok(())
        }
        WeightsAction::Download { name, from, jobs, retry_wait } => {
            let options = hub::Options { from, jobs: jobs.into(), wait: Duration::from_millis(retry_wait.into()) };
            let mut display = Display { bars: stderr().is_terminal().then(MultiProgress::new), files: HashMap::new() };
            let found = hub.download(&name, &options, &mut |event| {
                display.show(&event);
                ControlFlow::Continue(())
            })?;
            terminal::output!("{name} is complete in {}", workspace::display(&found.path));
            Ok(())
        }
        WeightsAction::Verify { name } => hub.verify(name.as_deref(), &mut |model, file, verdict| {
            let verdict = match verdict {
                Verdict::Published => "right, as published".to_owned(),
                Verdict::Recorded => "unchanged since it was downloaded".to_owned(),
                Verdict::Unknown(found) => format!("nothing to compare sha256 {found} with"),
                Verdict::Wrong(reason) => format!("WRONG: {reason}"),
            };
            terminal::output!("{model}/{file}: {verdict}");
        }),
    }
}

struct Display {
    bars: Option<MultiProgress>,
    /// The bar of each file, and the last tenth that a plain line told.
    files: HashMap<String, (Option<ProgressBar>, u64)>,
}

impl Display {
    fn show(&mut self, event: &Progress) {
        match event {
            Progress::Bytes { file, done, total } => {
                let bars = self.bars.as_ref();
                let (bar, told) =
                    self.files.entry(file.clone()).or_insert_with(|| (bars.map(|bars| bars.add(bar(file))), 0));
                match (bar, *total) {
                    (Some(bar), total) => {
                        bar.set_length(total.unwrap_or(*done));
                        bar.set_position(*done);
                    }
                    // Small files need no line between.
                    (None, Some(total)) if total >= 100_000_000 => {
                        let tenth = 10 * done / total;
                        if tenth != std::mem::replace(told, tenth) && (1..10).contains(&tenth) {
                            self.say(&format!("{file}: {tenth}0 % of {}", size(total)));
                        }
                    }
                    _ => {}
                }
            }
            Progress::Ended { file } => {
                if let Some((Some(bar), _)) = self.files.remove(file) {
                    bar.finish_and_clear();
                }
            }
            event => self.say(&event.to_string()),
        }
    }

    fn say(&self, line: &str) {
        match &self.bars {
            // Above the bars; that a line cannot be shown is no reason to stop.
            Some(bars) => drop(bars.println(terminal::escaped_lines(line))),
            None => terminal::say!("{line}"),
        }
    }
}

fn bar(file: &str) -> ProgressBar {
    let template = "{prefix:40!} {wide_bar} {percent:>3} % {decimal_bytes_per_sec:>11} {eta:>4}";
    // A fixed template cannot fail; were it to, the default style would do.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style).with_prefix(file.to_owned())
}
