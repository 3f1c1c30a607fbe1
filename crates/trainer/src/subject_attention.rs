//! Where the subject acts in an image, while it is being learned.

use std::path::Path;

use anyhow::Result;
use heatmaps::{Config, HeatMapRecorder, Scale, overlay};
use images::Grid;
use sampling::{NotFinite, Request};
use tch::{Device, Kind};

use crate::Trainer;
use crate::outputs;

/// The prompts' name for the subject.
const SUBJECT: &str = "[V]";

/// Writes an image of the first validation prompt that names the subject, and beside it the same under the heat maps of the subject and
/// of the class noun, from the validation images' seed; no random number of the run is touched. Returns notes on why there is none.
pub(crate) fn write(trainer: &Trainer, file: &Path) -> Result<Vec<String>> {
    let (config, pipeline) = (&trainer.config, &trainer.pipeline);
    let Some(prompt) = config.validation.prompts.iter().find(|prompt| prompt.contains(SUBJECT)) else {
        return Ok(vec!["no validation prompt names [V]: there is no map of its attention".to_owned()]);
    };
    let prompt = config.fill(prompt);
    let settings = outputs::settings(trainer);
    let [_, height, width] = pipeline.latents_shape(&settings);
    let positions = pipeline.tokenizer.encode(&pipeline.resolve(&prompt)?)?.len;
    let mut recorder = HeatMapRecorder::new(Config::default(), positions, (height, width), 1)?;
    let request = [Request::new(&prompt, config.validation.seed)];
    let latents = pipeline.denoise_observed(&request, &settings, &mut recorder, &mut |_| {})?;
    let image = match pipeline.decode(&request, &latents) {
        Ok(mut images) => images.remove(0),
        Err(error) if error.is::<NotFinite>() => return Ok(vec![format!("{} is left out: {error}", file.display())]),
        Err(error) => return Err(error),
    };
    let maps = recorder.finish()?;
    let words = pipeline.words(&prompt)?;
    let shown = words.iter().filter(|word| word.text == SUBJECT || word.text == config.category);
    let mut grid = Grid::new(3);
    grid.push(image.clone(), &prompt);
    for word in shown.take(2) {
        let map = maps.word(word.positions.clone())?.get(0).to_device(Device::Cpu) / maps.passes as f64;
        let share = map.mean(Kind::Double).double_value(&[]);
        grid.push(overlay(&image, &map, Scale::MinMax)?, format!("{} {:.1}%", word.text, share * 100.0));
    }
    images::save_generated(file, &grid.draw(), &[("Title", &prompt)])?;
    Ok(Vec::new())
}
