//! deploy/slurm on a cluster of one machine, which the test starts and stops: Slurm as Debian packs it. Where that is not installed,
//! or may not be started, these tests are ignored, and with REQUIRE_SLURM=1 they fail.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use golden::fixtures;
use libtest_mimic::{Arguments, Completion, Trial};

const NO_SLURM: &str =
    "Slurm cannot be started here (as root, after apt-get install slurmctld slurmd slurm-client munge)";

fn main() -> ExitCode {
    let required = env::var_os("REQUIRE_SLURM").is_some_and(|value| !value.is_empty());
    let found = ["slurmctld", "slurmd", "munged", "sbatch"].into_iter().all(|name| program(name).is_some());
    let is_root = Path::new("/proc/self").metadata().is_ok_and(|this| std::os::unix::fs::MetadataExt::uid(&this) == 0);
    let tests: [(&str, fn()); 2] = [
        ("a_stopped_task_goes_on_and_a_cancelled_one_does_not", a_stopped_task_goes_on_and_a_cancelled_one_does_not),
        ("the_tasks_of_a_job_learn_one_subject", the_tasks_of_a_job_learn_one_subject),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::ignorable_test(name, move || match (found && is_root, required) {
            (true, _) => {
                test();
                Ok(Completion::Completed)
            }
            (false, true) => Err(format!("REQUIRE_SLURM is set, but {NO_SLURM}").into()),
            (false, false) => Ok(Completion::ignored_with(NO_SLURM)),
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// A program on the PATH, or where daemons are.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A controller and a node of two processors, with keys and ports of their own.
struct Cluster {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap();
        // Free ones: Slurm takes none that it chooses itself.
        let ports: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [controller, node] = [0, 1].map(|i: usize| ports[i].local_addr().unwrap().port());
        drop(ports);
        for name in ["state", "spool"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let key: Vec<u8> = (0..1024u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(folder.join("key"), key).unwrap();
        fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let socket = at("munge");
        let configuration = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
             AuthType=auth/munge\nAuthInfo=socket={socket}\nCryptoType=crypto/munge\nSlurmUser=root\nSlurmdUser=root\n\
             StateSaveLocation={}\nSlurmdSpoolDir={}\nSlurmctldPidFile={}\nSlurmdPidFile={}\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nSchedulerType=sched/builtin\nReturnToService=2\nMpiDefault=none\n\
             AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN\nPartitionName=main Nodes={host} Default=YES State=UP\n",
            at("state"),
            at("spool"),
            at("controller.pid"),
            at("node.pid"),
        );
        fs::write(folder.join("slurm.conf"), configuration).unwrap();
        let mut cluster = Self { folder: folder.to_owned(), daemons: Vec::new() };
        let key_file = format!("--key-file={}", at("key"));
        let munge = [key_file, format!("--socket={socket}"), format!("--pid-file={}", at("munge.pid"))];
        let logs = [format!("--log-file={}", at("munge.log")), format!("--seed-file={}", at("munge.seed"))];
        cluster.daemon("munged", &[&munge[..], &logs, &["--foreground".to_owned(), "--force".to_owned()]].concat());
        cluster.wait("munge", || Path::new(&socket).exists());
        for name in ["slurmctld", "slurmd"] {
            cluster.daemon(name, &["-D".to_owned(), "-f".to_owned(), at("slurm.conf")]);
        }
        cluster.wait("the node", || cluster.output("sinfo", &["-h"]).contains("idle"));
        cluster
    }

    fn daemon(&mut self, name: &str, arguments: &[String]) {
        let log = fs::File::create(self.folder.join(format!("{name}.out"))).unwrap();
        let daemon = Command::new(program(name).unwrap())
            .args(arguments)
            .env("SLURM_CONF", self.folder.join("slurm.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.daemons.push(daemon.unwrap());
    }

    /// Waits for something; where it does not happen, says what the daemons have said.
    fn wait(&self, what: &str, happens: impl Fn() -> bool) {
        let start = Instant::now();
        while !happens() {
            if start.elapsed() > Duration::from_secs(90) {
                let logs = ["munged.out", "slurmctld.out", "slurmd.out"].map(|name| self.folder.join(name));
                let said: Vec<String> = logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect();
                panic!("{what} does not come: {}\n{}", self.output("squeue", &[]), said.join("\n"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name).unwrap());
        command.args(arguments).env("SLURM_CONF", self.folder.join("slurm.conf")).current_dir(&self.folder);
        command
    }

    fn output(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name, arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command("scancel", &["--user=root"]).output();
        for daemon in self.daemons.iter_mut().rev() {
            // Not killed, so that the node ends what it has started.
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }
}

/// Two bounds, a short method, and one that is long enough to be stopped.
fn plan(folder: &Path) {
    fs::create_dir(folder.join("photos")).unwrap();
    for n in 0..3u32 {
        let photo =
            image::RgbImage::from_fn(80 + n, 64, |x, y| [(x * 3) as u8, (y * 4 + n * 50) as u8, (x ^ y) as u8].into());
        photo.save(folder.join("photos").join(format!("{n}.png"))).unwrap();
    }
    fs::write(folder.join("prompts.txt"), "a {} on the beach\n").unwrap();
    let [model, judge] = ["tiny-sd21", "tiny-clip"].map(|name| fixtures().join(name).display().to_string());
    let plan = format!(
        r#"
name = "two"
model = "{model}"
judge = "{judge}"
prompts = "prompts.txt"
images = 1
steps = 2
reference = "short"
subjects = [{{ name = "tom", photos = "photos", category = "cat" }}]

[[methods]]
name = "short"
method = "textual-inversion"
steps = 1
batch_size = 2
resolution = 64

[[methods]]
name = "long"
method = "textual-inversion"
steps = 60
batch_size = 2
resolution = 64
"#
    );
    fs::write(folder.join("plan.toml"), plan).unwrap();
}

fn a_stopped_task_goes_on_and_a_cancelled_one_does_not() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    plan(folder);
    let cluster = Cluster::start(folder);
    let batch = fixtures().parent().unwrap().join("deploy/slurm/array.sbatch");
    let batch = batch.to_str().unwrap();
    let submit = |array: &str, out: &str| {
        // The machine has no GPU and little memory; all else is as the file has it.
        let here = ["--parsable", array, "--gpus=0", "--mem=0", "--cpus-per-task=1"];
        let table = ["table", "run", "plan.toml", "--out", out, "--device", "cpu", "--keep", "everything"];
        let job = cluster
            .command("sbatch", &[&here[..], &[batch], &table].concat())
            .env("ATTNDREAMBOOTH", env!("CARGO_BIN_EXE_attndreambooth"))
            .env("OMP_NUM_THREADS", "1")
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .output()
            .unwrap();
        assert!(job.status.success(), "{job:?}");
        String::from_utf8(job.stdout).unwrap().trim().to_owned()
    };
    let steps_in = |log: &Path| fs::read_to_string(log).map_or(0, |text| text.lines().count());
    let job = submit("--array=0-3", "out");
    let long = format!("{job}_3");
    let log = folder.join("out/cells/tom/long/seed-0/run/log.jsonl");
    let steps = || steps_in(&log);
    cluster.wait("the first steps of the long cell", || steps() > 4);
    assert_eq!(cluster.output("scancel", &["--signal=TERM", "--full", &long]), "");
    let state = || cluster.output("squeue", &["-h", "--array", "--jobs", &long, "--format", "%T %r"]);
    cluster.wait("the long cell in the queue again", || state().contains("PENDING BeginTime"));
    let before = steps();
    assert!((5..60).contains(&before), "{before} steps");
    let checkpoints = log.with_file_name("checkpoints");
    assert_eq!(fs::read_dir(&checkpoints).unwrap().count(), 1);
    // Slurm waits two minutes before it starts a job anew.
    cluster.output("scontrol", &["update", &format!("jobid={long}"), "StartTime=now"]);
    cluster.wait("an empty queue", || cluster.output("squeue", &["-h"]).is_empty());

    let said = |task: usize| fs::read_to_string(folder.join(format!("attndreambooth-{job}_{task}.log"))).unwrap();
    for task in 0..4 {
        // The others have run once.
        let runs = said(task).matches(&format!("cell {task} of 4")).count();
        assert_eq!(runs, if task == 3 { 2 } else { 1 }, "task {task}: {}", said(task));
        assert_eq!(said(task).matches("1 cell(s) are done").count(), 1, "task {task}: {}", said(task));
    }
    // Each step was done once, in one order.
    let text = fs::read_to_string(&log).unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<u64>>());
    let collected = Command::new(env!("CARGO_BIN_EXE_attndreambooth"))
        .args(["table", "collect", "plan.toml", "--out", "out", "--format", "csv"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    let table = String::from_utf8(collected.stdout).unwrap();
    for row in ["real pictures,", "base model,", "short,", "long,"] {
        assert!(table.lines().any(|line| line.starts_with(row)), "{row} {table}");
    }

    // Whoever cancels a task does not want it again.
    let job = submit("--array=3", "cancelled");
    let log = folder.join("cancelled/cells/tom/long/seed-0/run/log.jsonl");
    cluster.wait("the first steps of the long cell", || steps_in(&log) > 4);
    cluster.output("scancel", &[&format!("{job}_3")]);
    cluster.wait("an empty queue", || cluster.output("squeue", &["-h"]).is_empty());
    assert!(steps_in(&log) < 60);
    let said = fs::read_to_string(folder.join(format!("attndreambooth-{job}_3.log"))).unwrap();
    assert!(said.contains("the same command continues it"), "{said}");
}

/// Two processes, which are stopped, queued again and end.
fn the_tasks_of_a_job_learn_one_subject() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    plan(folder);
    let cluster = Cluster::start(folder);
    let batch = fixtures().parent().unwrap().join("deploy/slurm/parallel.sbatch");
    let model = fixtures().join("tiny-sd21").display().to_string();
    // The machine has no GPU and little memory; all else is as the file has it.
    let here = ["--parsable", "--ntasks-per-node=2", "--gpus-per-task=0", "--mem-per-cpu=0", "--cpus-per-task=1"];
    let train = "train --method textual-inversion --steps 60 --batch-size 3 --resolution 64 --results none --validate-every 0 \
                 --concept photos --category cat --out run --device cpu --model";
    let train: Vec<&str> = train.split_whitespace().collect();
    let job = cluster
        .command("sbatch", &[&here[..], &[batch.to_str().unwrap()], &train, &[&model]].concat())
        .env("ATTNDREAMBOOTH", env!("CARGO_BIN_EXE_attndreambooth"))
        .env("OMP_NUM_THREADS", "1")
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .output()
        .unwrap();
    assert!(job.status.success(), "{job:?}");
    let job = String::from_utf8(job.stdout).unwrap().trim().to_owned();
    let said = || fs::read_to_string(folder.join(format!("attndreambooth-{job}.log"))).unwrap_or_default();
    let log = folder.join("run/log.jsonl");
    let steps = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let happens = |what: &str, happens: &dyn Fn() -> bool| {
        cluster.wait(what, || {
            assert!(!said().lines().any(|line| line.starts_with("error:")), "{}", said());
            happens()
        });
    };
    happens("the first steps", &|| steps() > 4);
    assert_eq!(cluster.output("scancel", &["--signal=USR1", "--batch", &job]), "");
    let state = || cluster.output("squeue", &["-h", "--jobs", &job, "--format", "%T %r"]);
    happens("the job in the queue again", &|| state().contains("PENDING BeginTime"));
    assert!((5..60).contains(&steps()), "{} steps", steps());
    cluster.output("scontrol", &["update", &format!("jobid={job}"), "StartTime=now"]);
    happens("an empty queue", &|| cluster.output("squeue", &["-h"]).is_empty());
    assert!(folder.join("run/learned_embeds.safetensors").exists(), "{}", said());
    assert_eq!(said().matches("each batch is shared by 2 processes").count(), 2, "{}", said());
    let text = fs::read_to_string(&log).unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<u64>>());
}
