//! The names of files and folders in a run's folder.
//!
//! A finished run has a file for each group that it has trained; a complete one no longer has [`CHECKPOINTS`].

/// The run's configuration and what it was made from ([`SavedRun`](crate::SavedRun)).
pub const CONFIG: &str = "config.json";
/// A model's own values for its training, in the model's folder.
pub const MODEL_CONFIG: &str = "attndreambooth.json";
/// The log ([`read_log`](crate::read_log)).
pub const LOG: &str = "log.jsonl";
/// Checkpoints, until the run is complete.
pub const CHECKPOINTS: &str = "checkpoints";
/// Of a run with `stop`: what was measured, and how it ended ([`StopRecord`](crate::StopRecord)).
pub const STOP: &str = "stop.json";
/// What such a run may still end with, until it is complete: the parameters that its last phase trains, as they were after
/// some of its measurements.
pub const SNAPSHOTS: &str = "snapshots";
/// What a run starts from that starts from another one or a file: its own copy of the embedding and the adapter.
pub const START: &str = "start.safetensors";
/// The first augmented crops that the model is trained on.
pub const CONTACT_SHEET: &str = "contact_sheet.png";
/// The losses.
pub const CURVES: &str = "curves.png";
/// The validation prompts at the end.
pub const SAMPLES: &str = "samples.png";
/// The validation prompts on the way ([`samples`](crate::samples)).
pub const VALIDATION: &str = "validation";
/// The reference photo that the finished model looks at, where it looks at one: a square of the size of the crops.
pub const REFERENCE: &str = "reference.png";
/// Where the reference shows the subject, as the finished model sees it.
pub const REFERENCE_MASK: &str = "reference_mask.png";
/// Class images for prior preservation.
pub const PRIOR: &str = "prior";
/// The learned embedding: `{placeholder: [vectors, width]}`.
pub const EMBEDDING: &str = "learned_embeds.safetensors";
/// The U-Net's folder, in the diffusers layout.
pub const UNET: &str = "unet";
/// Its weights.
pub const UNET_WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
/// What phases have trained that later ones train again, as it was after them: a file for each group of a phase.
pub const PHASES: &str = "phases";
/// The trained part of the U-Net where that is not all of it, under the names in the U-Net.
pub const UNET_PART: &str = "unet.safetensors";
/// What the method has added to the model, such as LoRA's matrices.
pub const ADAPTER: &str = "adapter.safetensors";
/// The text encoder, where it is trained, in the diffusers layout.
pub const TEXT_ENCODER: &str = "text_encoder";
/// Its weights.
pub const TEXT_ENCODER_WEIGHTS: &str = "text_encoder/model.safetensors";
/// Evaluations, a folder for each prompt set.
pub const EVALUATION: &str = "evaluation";
/// The scores in the folder of an evaluation ([`Evaluation`](crate::Evaluation)).
pub const SCORES: &str = "scores.json";
/// How the images beside it were generated ([`GalleryConfig`](crate::GalleryConfig)).
pub const GALLERY: &str = "recipe.json";
/// The subject beside the base model.
pub const COMPARISON: &str = "comparison";
/// What is compared in [`COMPARISON`] ([`Comparison`](crate::Comparison)).
pub const COMPARISON_RECORD: &str = "comparison.json";
/// Images of prompts, generated from the finished run.
pub const IMAGES: &str = "images";
/// The log in a folder of generated images ([`read_images`](crate::read_images)).
pub const IMAGE_LOG: &str = "generate.jsonl";
/// Attention maps.
pub const ATTENTION: &str = "attend";
/// What is shown in [`ATTENTION`] ([`Attention`](crate::Attention)).
pub const ATTENTION_RECORD: &str = "attend.json";
/// What was found about the learned embedding.
pub const INSPECTION: &str = "inspect";
/// The file in [`INSPECTION`] ([`Inspection`](crate::Inspection)).
pub const INSPECTION_RECORD: &str = "inspect.json";
/// The table in the folder of an ablation ([`Ablation`](crate::Ablation)).
pub const ABLATION_RECORD: &str = "ablation.json";
/// The run as a page.
pub const REPORT: &str = "report.html";
