//! What a single file's metadata say by the ModelSpec standard (<https://github.com/Stability-AI/ModelSpec>).

use std::path::Path;

use weights::Archive;

use crate::PredictionType;

/// What it says of the model, and what of that is passed over.
pub(crate) struct Said {
    pub(crate) prediction: Option<PredictionType>,
    pub(crate) image_size: Option<i64>,
    pub(crate) notes: Vec<String>,
}

impl Said {
    pub(crate) fn of(path: &Path, archive: &Archive) -> Self {
        let value = |key: &str| archive.metadata().get(&format!("modelspec.{key}")).map(|value| value.trim());
        let by_architecture = || match value("architecture")?.split('/').next()? {
            "stable-diffusion-v2-512" => Some(PredictionType::Epsilon),
            "stable-diffusion-v2-768-v" => Some(PredictionType::VPrediction),
            _ => None,
        };
        let mut notes = Vec::new();
        let mut passed_over = |key: &str, value: &str, why: &str| {
            notes.push(format!("modelspec.{key} of {} is {value:?}, {why}; it is passed over", path.display()));
        };
        let prediction = match value("prediction_type").map(|name| (name, name.to_lowercase())) {
            None => by_architecture(),
            Some((name, lower)) => match lower.as_str() {
                "epsilon" | "eps" => Some(PredictionType::Epsilon),
                "v" | "v_prediction" | "v-prediction" => Some(PredictionType::VPrediction),
                _ => {
                    passed_over("prediction_type", name, "but only epsilon and v are known here");
                    by_architecture()
                }
            },
        };
        let image_size = value("resolution").and_then(|text| {
            let sides: Option<Vec<i64>> = text.split(['x', 'X']).map(|side| side.trim().parse().ok()).collect();
            let size = match sides.as_deref() {
                Some([side]) => Some(*side),
                Some([width, height]) if width == height => Some(*width),
                _ => None,
            };
            let size = size.filter(|size| (64..=4096).contains(size) && size % 8 == 0);
            if size.is_none() {
                passed_over("resolution", text, "which is no square of a multiple of 8 pixels");
            }
            size
        });
        Self { prediction, image_size, notes }
    }
}
