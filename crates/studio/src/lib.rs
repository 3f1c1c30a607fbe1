#![doc = include_str!("../README.md")]
//!
//! ```no_run
//! use std::path::Path;
//!
//! let request = requests::Studio { port: 0, ..requests::Studio::new("runs") };
//! let studio = studio::Server::open(&request, Path::new("target/release/attndreambooth"), &[])?;
//! println!("{}", studio.url());
//! studio.run(&|| false)?; // until the process ends, or this is true
//! # anyhow::Ok(())
//! ```
//!
//! # Invariants
//!
//! - Listens to this machine alone unless told otherwise, and to nobody without the token: `access.rs` has the rules.
//! - A page names runs, photos, models and files by names ([`requests::Studio::runs`] has them all); no path comes from it.
//! - Pages load nothing from elsewhere and have no script within; texts are escaped by type (maud), and hide nothing.
//! - A job is on the disk before it is begun; one runs on each device at a time, and a training gives way to all others by a checkpoint.
//! - A run is found by its folder: whether the command line, this studio or an earlier one has started it.

mod access;
mod answer;
mod api;
mod files;
mod folder;
mod image_logs;
mod jobs;
mod library;
mod live;
mod models;
mod name;
mod openapi;
mod pages;
mod parts;
mod photo_names;
mod process;
mod queue;
mod request;
mod routes;
mod run_state;
mod sdapi;
mod source;
mod studio;
mod trash;
mod workers;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use requests::Studio as Request;
use runs::Lock;

use access::Access;
use jobs::Jobs;
use library::Library;
use live::Live;
use process::Program;
use queue::Queue;
use studio::Studio;
use workers::Workers;

/// A studio that listens.
pub struct Server {
    listener: TcpListener,
    url: String,
    workers: Workers,
    router: Router,
    /// One studio at a time has a folder of runs.
    _lock: Lock,
}

impl Server {
    /// Opens the studio on a folder of runs, and goes on with its queue: `program` is started for each job, with
    /// these options for all its commands.
    ///
    /// # Errors
    /// When the folder cannot be used or has a studio already, a model is not found, or the port is taken.
    pub fn open(request: &Request, program: &Path, options: &'static [&'static str]) -> Result<Self> {
        let library = Library::open(&request.runs, &request.models)?;
        let lock =
            Lock::take(&library.own("")).context("the studio of these runs is open already, or cannot be opened")?;
        let address = SocketAddr::new(request.host, request.port);
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address}; choose another with --port, or 0 for any"))?;
        listener.set_nonblocking(true)?;
        let access = Access::open(&library.own("token"), listener.local_addr()?)?;
        let queue = Arc::new(Queue::new(Jobs::open(&library.own("jobs.json"))?));
        let program = Program { path: program.to_owned(), options };
        let workers = Workers::start(program, library.folder(), &queue, &request.devices)?;
        let studio = Arc::new(Studio { library, queue, live: Arc::new(Live::default()), checkpoint: Mutex::default() });
        let url = access.url();
        let router = routes::router(studio, access);
        Ok(Self { listener, url, workers, router, _lock: lock })
    }

    /// The address to open, with the token.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves until `stopped` says so; then ends the jobs' processes, trainings with a checkpoint. What waits goes on when the studio
    /// is opened again.
    ///
    /// # Errors
    /// When the system does not let it serve.
    pub fn run(self, stopped: &dyn Fn() -> bool) -> Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start serving")?;
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let wait = async {
                while !stopped() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::select! {
                served = axum::serve(listener, self.router) => served.context("serving has failed"),
                () = wait => Ok(()),
            }
        });
        // Pages that are open must not keep it.
        runtime.shutdown_background();
        self.workers.stop();
        served
    }
}
