//! deploy/kubernetes against Kubernetes' published schemas, by kubernetes-validate (pip install kubernetes-validate) on the PATH or as
//! KUBERNETES_VALIDATE names it. Where it is not installed these tests are ignored, and with REQUIRE_KUBERNETES_VALIDATE=1 they fail.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Completion, Trial};

const NO_VALIDATOR: &str = "there is no kubernetes-validate on this machine (pip install kubernetes-validate)";

fn validator() -> Option<PathBuf> {
    if let Some(named) = env::var_os("KUBERNETES_VALIDATE").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("kubernetes-validate")).find(|file| file.is_file())
}

fn main() -> ExitCode {
    let validator = validator();
    let required = env::var_os("REQUIRE_KUBERNETES_VALIDATE").is_some_and(|value| !value.is_empty());
    let test = move || match &validator {
        Some(validator) => {
            kubernetes_knows_what_the_jobs_say(validator);
            Ok(Completion::Completed)
        }
        None if required => Err(format!("REQUIRE_KUBERNETES_VALIDATE is set, but {NO_VALIDATOR}").into()),
        None => Ok(Completion::ignored_with(NO_VALIDATOR)),
    };
    let trial = Trial::ignorable_test("kubernetes_knows_what_the_jobs_say", test);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn validate(validator: &Path, file: &Path) -> Output {
    Command::new(validator).args(["--strict", "--no-warn"]).arg(file).output().unwrap()
}

fn kubernetes_knows_what_the_jobs_say(validator: &Path) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/kubernetes");
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    let wrong = tempfile::tempdir().unwrap();
    for file in files {
        let output = validate(validator, &file);
        assert!(output.status.success(), "{}: {output:?}", file.display());
        // A validator that finds nothing wrong with this one would find nothing anywhere.
        let text = fs::read_to_string(&file).unwrap();
        let misspelt = wrong.path().join("job.yaml");
        fs::write(&misspelt, text.replacen("podFailurePolicy", "podFailurePolice", 1)).unwrap();
        let output = validate(validator, &misspelt);
        assert!(!output.status.success(), "{}: {output:?}", file.display());
    }
}
