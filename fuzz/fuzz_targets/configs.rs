//! Every JSON configuration; the first byte chooses which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scheduler::{SchedulerConfig, SchedulerKind};

fuzz_target!(|bytes: &[u8]| {
    let (Some((first, text)), Ok(file)) = (bytes.split_first(), tempfile::NamedTempFile::new()) else { return };
    let path = file.path();
    if std::fs::write(path, text).is_err() {
        return;
    }
    match first % 7 {
        0 => drop(weights::read_config::<unet::Config>(path).map(|config| config.validate())),
        1 => drop(weights::read_config::<vae::Config>(path).map(|config| config.validate())),
        2 => drop(weights::read_config::<clip::TextConfig>(path).map(|config| config.validate())),
        3 => drop(weights::read_config::<clip::ClipConfig>(path).map(|config| config.validate())),
        4 => drop(weights::read_config::<clip::ImageProcessor>(path).map(|config| config.validate())),
        5 => {
            if let Ok(config) = SchedulerConfig::from_file(path) {
                for kind in SchedulerKind::ALL {
                    let _ = config.build(kind, usize::from(*first));
                }
            }
        }
        _ => {
            let Ok(mut layers) = runs::ConfigLayers::new(&runs::TrainConfig::paper()) else { return };
            if layers.file(path).is_ok() {
                let _ = layers.finish().map(|config| config.validate());
            }
        }
    }
});
