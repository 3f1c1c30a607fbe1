//! Prompts whose keys and values depend on the timestep.

use std::sync::{Arc, Mutex};

use clip::ClipTextModel;
use golden::{assert_close, fixtures, relative_error};
use libtorch::random;
use sampling::{Conditioning, Pipeline, Request, Settings};
use scheduler::SchedulerKind;
use tch::{Device, Kind, Tensor};
use unet::{KvCache, UNet};

/// Takes the token's row as it is, as if it depended on nothing, or changes it with the timestep.
#[derive(Debug)]
struct Rows {
    token: i64,
    varies: bool,
    /// Of each call, the timesteps.
    asked: Arc<Mutex<Vec<Vec<f64>>>>,
}

impl Conditioning for Rows {
    fn token(&self) -> i64 {
        self.token
    }

    fn project(
        &self,
        text_encoder: &ClipTextModel,
        unet: &UNet,
        ids: &Tensor,
        timesteps: &Tensor,
        dtype: Kind,
    ) -> anyhow::Result<KvCache> {
        self.asked.lock().unwrap().push(Vec::try_from(timesteps.to_kind(Kind::Double)).unwrap());
        let rows = text_encoder.embed(ids)?.to_kind(dtype);
        let place = ids.eq(self.token).unsqueeze(-1);
        let scale = if self.varies { timesteps / 1000.0 } else { timesteps.ones_like() };
        let rows = (&rows * scale.view([-1, 1, 1]).to_kind(dtype)).where_self(&place, &rows);
        unet.project(&text_encoder.forward_embeddings(&rows)?)
    }
}

fn pipeline(varies: Option<bool>) -> (Pipeline, Arc<Mutex<Vec<Vec<f64>>>>) {
    let mut pipeline = Pipeline::from_folder(&fixtures().join("tiny-sd21"), (Kind::Float, Device::Cpu)).unwrap();
    pipeline.add_placeholder("<new>", &random::normal(1, &[1, 32])).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    if let Some(varies) = varies {
        let token = pipeline.tokenizer.id("<new>").unwrap();
        let rows = || Box::new(Rows { token, varies, asked: Arc::clone(&asked) });
        pipeline.set_conditioning(rows()).unwrap();
        assert!(pipeline.set_conditioning(rows()).unwrap_err().to_string().contains("takes no second one"));
    }
    (pipeline, asked)
}

fn requests() -> Vec<Request> {
    let of = |prompt: &str, negative: &str, seed| Request {
        negative_prompt: negative.to_owned(),
        ..Request::new(prompt, seed)
    };
    // The token in both kinds of prompts, in one or in none, and a prompt twice.
    vec![
        of("a [V]", "", 1),
        of("a cat", "[V]", 2),
        of("a photo of [V]", "blurry", 3),
        of("a dog", "", 4),
        of("a [V]", "", 5),
    ]
}

fn latents(pipeline: &Pipeline, requests: &[Request], guidance_scale: f64) -> Tensor {
    let scheduler = Some(SchedulerKind::DpmSolverPlusPlus);
    let settings = Settings { steps: 5, guidance_scale, scheduler, ..pipeline.default_settings() };
    pipeline.denoise(requests, &settings, &mut |_| {}).unwrap()
}

#[test]
fn what_does_not_vary_makes_the_same_images() {
    let (expected, found) = (pipeline(None).0, pipeline(Some(false)).0);
    for guidance_scale in [1.0, 4.0] {
        let [expected, found] = [&expected, &found].map(|pipeline| latents(pipeline, &requests(), guidance_scale));
        assert_close("latents", &found, &expected, 1e-5);
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch_and_each_prompt_is_projected_once_for_each_step() {
    let (pipeline, asked) = pipeline(Some(true));
    let together = latents(&pipeline, &requests(), 4.0);
    let asked = asked.lock().unwrap().concat();
    // "a [V]", "[V]" and "a photo of [V]", at each of the steps' timesteps, the noisiest first.
    assert_eq!(asked.len(), 3 * 5);
    assert!(asked.chunks(3).all(|same| same.iter().all(|timestep| *timestep == same[0])), "{asked:?}");
    assert!(asked.is_sorted_by(|a, b| a >= b) && asked[0] > asked[3]);
    for (i, request) in requests().into_iter().enumerate() {
        let alone = latents(&pipeline, &[request], 4.0);
        assert_close("alone", &alone, &together.narrow(0, i as i64, 1), 1e-5);
    }
    let constant = latents(&self::pipeline(None).0, &requests(), 4.0);
    for (i, varies) in [true, true, true, false, true].into_iter().enumerate() {
        let of = |latents: &Tensor| latents.get(i as i64);
        assert_eq!(relative_error(&of(&together), &of(&constant)) > 1e-3, varies, "image {i}");
    }
}
