//! Which model a name means, with folders and caches as people have them. Nothing here asks the network.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hub::{Hub, ModelKind, Origin, Verdict};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A model in the diffusers layout.
    fn put_model(&self, folder: &str) {
        for component in ["unet", "vae", "text_encoder"] {
            self.put(&format!("{folder}/{component}/config.json"), "{}");
            self.put(&format!("{folder}/{component}/model.safetensors"), "");
        }
        self.put(&format!("{folder}/scheduler/scheduler_config.json"), "{}");
    }

    fn hub(&self) -> Hub {
        Hub::from_env().unwrap().with_models(self.path("models")).with_cache(self.path("cache"))
    }

    fn finds(&self, name: &str, kind: ModelKind) -> Option<(PathBuf, Origin)> {
        let located = self.hub().resolve(name, kind).ok()?;
        Some((located.path.strip_prefix(self.folder.path()).unwrap().to_owned(), located.origin))
    }

    fn refusal(&self, name: &str) -> String {
        self.hub().resolve(name, ModelKind::Diffusion).unwrap_err().to_string()
    }
}

#[test]
fn a_path_comes_first_then_the_models_then_the_cache() {
    let place = Place::new();
    let found = |path: &str, origin| Some((Path::new(path).to_owned(), origin));
    for name in ["sd2.1-base", "someone/model"] {
        assert_eq!(place.finds(name, ModelKind::Diffusion), None);
        assert!(place.refusal(name).contains(&format!("{name} is not on this machine; `weights download {name}`")));
    }
    // As huggingface_hub lays a cache out: links into blobs, and a commit behind the branch.
    place.put("cache/models--someone--model/refs/main", "abc123\n");
    place.put_model("cache/models--someone--model/snapshots/abc123");
    let weights = place.path("cache/models--someone--model/snapshots/abc123/vae/model.safetensors");
    fs::remove_file(&weights).unwrap();
    symlink("../../../blobs/one", &weights).unwrap();
    assert_eq!(place.finds("someone/model", ModelKind::Diffusion), None, "its blob is missing");
    place.put("cache/models--someone--model/blobs/one", "");
    let cached = found("cache/models--someone--model/snapshots/abc123", Origin::Cache);
    assert_eq!(place.finds("someone/model", ModelKind::Diffusion), cached);
    place.put_model("models/someone--model");
    assert_eq!(place.finds("someone/model", ModelKind::Diffusion), found("models/someone--model", Origin::Models));
    // A known model by its name, its repository's, or as somebody has cloned it.
    place.put("models/clip-vit-base-patch32/config.json", "{}");
    place.put("models/clip-vit-base-patch32/model.safetensors", "");
    for name in ["clip-vit-b32", "openai/clip-vit-base-patch32", "clip-vit-base-patch32"] {
        assert_eq!(place.finds(name, ModelKind::Clip), found("models/clip-vit-base-patch32", Origin::Models), "{name}");
    }
    let file = place.path("my.safetensors");
    place.put("my.safetensors", "");
    let name = file.display().to_string();
    assert_eq!(place.finds(&name, ModelKind::Diffusion), found("my.safetensors", Origin::Path));
}

#[test]
fn a_single_checkpoint_is_the_model() {
    let place = Place::new();
    place.put("models/someone--dreamy/dreamy.safetensors", "");
    let file = Path::new("models/someone--dreamy/dreamy.safetensors").to_owned();
    assert_eq!(place.finds("someone/dreamy", ModelKind::Diffusion), Some((file, Origin::Models)));
    place.put("models/someone--dreamy/other.safetensors", "");
    assert_eq!(place.finds("someone/dreamy", ModelKind::Diffusion), None, "nothing says which");
}

#[test]
fn what_is_not_here_is_told_apart() {
    let place = Place::new();
    place.put("models/sd2.1-base/unet/config.json", "{}");
    assert!(place.refusal("sd2.1-base").contains("is incomplete in"));
    assert!(place.refusal("sd9").contains("there is no model \"sd9\" (there are sd2.1-base"));
    for path in ["./models/none", "/no/such", "none.safetensors", "../x", "models/none", "src/none"] {
        assert!(place.refusal(path).starts_with(&format!("there is no model folder or file {path}; ")), "{path}");
    }
}

#[test]
fn a_repository_is_verified_by_its_record() {
    let place = Place::new();
    place.put("models/someone--dreamy/dreamy.safetensors", "abc");
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let record = format!(r#"{{"dreamy.safetensors": {{"size": 3, "sha256": "{sha256}", "source": "x"}}}}"#);
    place.put("models/someone--dreamy/weights-lock.json", &record);
    let verdicts = |name: Option<&str>| {
        let mut verdicts = Vec::new();
        let outcome =
            place.hub().verify(name, &mut |_, file, verdict| verdicts.push((file.to_owned(), verdict.clone())));
        (verdicts, outcome.map_err(|error| error.to_string()))
    };
    for name in [None, Some("someone/dreamy")] {
        assert_eq!(verdicts(name), (vec![("dreamy.safetensors".to_owned(), Verdict::Recorded)], Ok(())));
    }
    place.put("models/someone--dreamy/dreamy.safetensors", "xyz");
    assert!(verdicts(None).1.unwrap_err().contains("someone--dreamy/dreamy.safetensors"));
}
