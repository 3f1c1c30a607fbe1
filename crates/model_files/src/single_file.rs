//! A model in one file, in the layout of the original code.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use tokenizer::Tokenizer;
use weights::{Archive, View};

use crate::configs::{Configs, Family, published};
use crate::modelspec::Said;
use crate::names::{
    CLIP, Names, OPEN_CLIP, SDXL_CLIP, SDXL_OPEN_CLIP, TEXT, UNET, VAE, number_after, open_clip, unet, vae,
};
use crate::recognition::{TextLayout, text_layout};
use crate::{Component, ModelFolder, ModelOptions, PredictionType};

/// Tokens of CLIP's vocabulary.
const CLIP_TOKENS: i64 = 49408;

/// A checkpoint whose configs are known.
#[derive(Debug, Clone)]
pub(crate) struct SingleFile {
    path: PathBuf,
    text_layout: TextLayout,
    family: Family,
    configs: Configs,
    /// Where the configs are from, if they are not the published ones.
    config_folder: Option<ModelFolder>,
    /// `None` for CLIP's own.
    tokenizer: Option<PathBuf>,
    notes: Vec<String>,
}

impl SingleFile {
    pub(crate) fn open(path: &Path, options: &ModelOptions) -> Result<Self> {
        let archive = Archive::open(path)?;
        let text_layout = text_layout(path, &archive)?;
        let config_folder = options.config.as_deref().map(ModelFolder::open).transpose();
        let config_folder = config_folder.context("the folder with the configs (--model-config)")?;
        let said = Said::of(path, &archive);
        let has = |mark: &str| archive.shapes().any(|(name, _)| name == mark);
        let family = family(&archive, text_layout);
        if let Some(folder) = config_folder.as_ref().filter(|folder| folder.is_sdxl() != (family == Family::Sdxl)) {
            let [is, is_not] = if folder.is_sdxl() { ["no SDXL", "SDXL's"] } else { ["SDXL", "of another model"] };
            bail!(
                "{} is {is}, but the configs in {} (--model-config) are {is_not}",
                path.display(),
                folder.path().display()
            );
        }
        let configs = match &config_folder {
            Some(folder) => configs_of(folder, path, options, &said)?,
            None => {
                known_geometry(path, &archive)?;
                let prediction = options.prediction_type.or(said.prediction);
                let prediction = match (prediction, family) {
                    (Some(prediction), _) => prediction,
                    // As those who have trained SDXL so mark it.
                    (None, Family::Sdxl) if has("v_pred") => PredictionType::VPrediction,
                    (None, Family::V1 | Family::Sdxl) => PredictionType::Epsilon,
                    (None, Family::V2) => bail!(
                        "{} is of Stable Diffusion 2.x and does not say what its U-Net predicts: give --prediction-type \
                         epsilon (2.0-base, 2.1-base and most that were made from them, 512 pixels) or --prediction-type \
                         v_prediction (2.0 and 2.1, 768 pixels)",
                        path.display()
                    ),
                };
                let velocity = family == Family::V2 && prediction == PredictionType::VPrediction;
                let trained = match family {
                    Family::Sdxl => 1024,
                    Family::V2 if velocity => 768,
                    Family::V1 | Family::V2 => 512,
                };
                let size = said.image_size.unwrap_or(trained);
                let mut configs = published(family, prediction, size);
                if has("ztsnr") {
                    configs.scheduler.insert("rescale_betas_zero_snr".to_owned(), true.into());
                    configs.scheduler.insert("timestep_spacing".to_owned(), "trailing".into());
                }
                configs
            }
        };
        ensure!(
            family != Family::Sdxl || options.tokenizer.is_none() || config_folder.is_some(),
            "{} is SDXL, which has two tokenizers, of which --tokenizer names one: name a folder with both, and with the configs, by \
             --model-config",
            path.display()
        );
        let own = config_folder.as_ref().map(|folder| folder.component("tokenizer")).filter(|folder| folder.is_dir());
        let tokenizer = options.tokenizer.clone().or(own);
        let mut this =
            Self { path: path.to_owned(), text_layout, family, configs, config_folder, tokenizer, notes: said.notes };
        this.check_vocabulary(&archive)?;
        this.notes.extend(this.about());
        this.notes.extend(passed_over(path, &archive));
        Ok(this)
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The config of a component, if it has that.
    pub(crate) fn config(&self, component: Component) -> Option<&Map<String, Value>> {
        match component {
            Component::Unet => Some(&self.configs.unet),
            Component::Vae => Some(&self.configs.vae),
            Component::TextEncoder => Some(&self.configs.text_encoder),
            Component::TextEncoder2 => self.configs.text_encoder_2.as_ref(),
        }
    }

    /// Whether it is SDXL.
    pub(crate) fn is_sdxl(&self) -> bool {
        self.family == Family::Sdxl
    }

    /// SDXL's second tokenizer: CLIP's own, or that of the folder with the configs where the model has another vocabulary.
    pub(crate) fn second_tokenizer(&self) -> Result<Tokenizer> {
        if self.tokenizer.is_none() {
            return Ok(Tokenizer::stable_diffusion_2()?);
        }
        let folder = self.config_folder.as_ref().context("SDXL's second tokenizer is in no folder")?;
        Ok(Tokenizer::load(folder.component("tokenizer_2"))?)
    }

    pub(crate) fn scheduler(&self) -> &Map<String, Value> {
        &self.configs.scheduler
    }

    /// The folder whose configs were given in place of the published ones.
    pub(crate) fn config_folder(&self) -> Option<&ModelFolder> {
        self.config_folder.as_ref()
    }

    /// The tokenizer's folder, if it has one.
    pub(crate) fn tokenizer_folder(&self) -> Option<&Path> {
        self.tokenizer.as_deref()
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(match (&self.tokenizer, self.family) {
            (Some(folder), _) => Tokenizer::load(folder)?,
            (None, Family::V1 | Family::Sdxl) => Tokenizer::stable_diffusion_1()?,
            (None, Family::V2) => Tokenizer::stable_diffusion_2()?,
        })
    }

    /// One component's tensors under diffusers' names; those that have no place in it keep their own.
    pub(crate) fn archive(&self, component: Component) -> Result<Archive> {
        let archive = Archive::open(&self.path)?;
        let views = match (component, self.text_layout) {
            (Component::Unet, _) => self.unet_views(&archive),
            (Component::Vae, _) => self.vae_views(&archive),
            (Component::TextEncoder, TextLayout::Clip) => clip_views(&archive, CLIP),
            (Component::TextEncoder, TextLayout::Sdxl) => clip_views(&archive, SDXL_CLIP),
            (Component::TextEncoder, TextLayout::OpenClip) => self.open_clip_views(&archive),
            (Component::TextEncoder2, TextLayout::Sdxl) => self.open_clip_views(&archive),
            (Component::TextEncoder2, _) => bail!("{} has no second text encoder", self.path.display()),
        };
        archive.view(views).with_context(|| format!("{} is not usable", self.path.display()))
    }

    /// The name that a parameter of a component has in the file.
    pub(crate) fn original_name(&self, component: Component, name: &str) -> Option<String> {
        let below = |prefix: &str, name: Option<String>| Some(format!("{prefix}{}", name?));
        match (component, self.text_layout) {
            (Component::Unet, _) => below(UNET, self.unet_names().to_ldm(name)),
            (Component::Vae, _) => below(VAE, self.vae_names().to_ldm(name)),
            (Component::TextEncoder, TextLayout::Clip) => below(CLIP, Some(name.to_owned())),
            (Component::TextEncoder, TextLayout::Sdxl) => below(SDXL_CLIP, Some(name.to_owned())),
            (Component::TextEncoder | Component::TextEncoder2, _) => {
                let (prefix, layers) = self.open_clip();
                let fused = open_clip::projections(layers).find(|(_, parts)| parts.iter().any(|p| p == name));
                let fused = fused.map(|(fused, _)| fused);
                let projection = (name == PROJECTION).then(|| "text_projection".to_owned());
                below(prefix, fused.or(projection).or_else(|| open_clip::table(layers).to_ldm(name)))
            }
        }
    }

    fn unet_names(&self) -> Names {
        let ups = self.configs.unet.get("up_block_types").and_then(Value::as_array);
        let attends = |kind: &Value| kind.as_str().is_some_and(|kind| kind.starts_with("CrossAttn"));
        unet::table(number(&self.configs.unet, "layers_per_block"), ups.into_iter().flatten().map(attends))
    }

    fn vae_names(&self) -> Names {
        let blocks = self.configs.vae.get("block_out_channels").and_then(Value::as_array).map_or(0, Vec::len);
        vae::table(blocks, number(&self.configs.vae, "layers_per_block"))
    }

    /// Where the text encoder in OpenCLIP's names is, and how many layers it has that are used.
    fn open_clip(&self) -> (&'static str, usize) {
        let (prefix, config) = match &self.configs.text_encoder_2 {
            Some(second) => (SDXL_OPEN_CLIP, second),
            None => (OPEN_CLIP, &self.configs.text_encoder),
        };
        (prefix, number(config, "num_hidden_layers"))
    }

    fn unet_views(&self, archive: &Archive) -> Vec<View> {
        let names = self.unet_names();
        let views = below(archive, UNET);
        views
            .map(|(name, full, _)| View::whole(names.to_diffusers(name).unwrap_or_else(|| full.to_owned()), full))
            .collect()
    }

    fn vae_views(&self, archive: &Archive) -> Vec<View> {
        let names = self.vae_names();
        let views = below(archive, VAE).filter(|(name, ..)| !name.starts_with("loss."));
        views
            .map(|(name, full, shape)| View {
                // A 1x1 convolution, which in diffusers is a matrix.
                shape: match *shape {
                    [rows, columns, 1, 1] if vae::is_convolution(name) => Some(vec![rows, columns]),
                    _ => None,
                },
                ..View::whole(names.to_diffusers(name).unwrap_or_else(|| full.to_owned()), full)
            })
            .collect()
    }

    fn open_clip_views(&self, archive: &Archive) -> Vec<View> {
        const UNUSED: [&str; 4] = ["text_projection", PROJECTION, "logit_scale", "attn_mask"];
        let (prefix, layers) = self.open_clip();
        let names = open_clip::table(layers);
        let fused: HashMap<String, [String; 3]> = open_clip::projections(layers).collect();
        let is_used = |name: &str| {
            !UNUSED.contains(&name) && number_after(name, open_clip::BLOCKS).is_none_or(|layer| layer < layers)
        };
        let mut views = Vec::new();
        for (name, full, _) in below(archive, prefix) {
            // SDXL uses the projection, which OpenCLIP has transposed and some programs as transformers.
            if self.is_sdxl() && ["text_projection", PROJECTION].contains(&name) {
                views.push(View { transposed: name != PROJECTION, ..View::whole(PROJECTION, full) });
            }
            if !is_used(name) {
                continue;
            }
            match fused.get(name) {
                Some(parts) => views
                    .extend(parts.iter().enumerate().map(|(i, part)| View { part: (i, 3), ..View::whole(part, full) })),
                None => views.push(View::whole(names.to_diffusers(name).unwrap_or_else(|| full.to_owned()), full)),
            }
        }
        views
    }

    /// Finds out whether a tokenizer must be named.
    fn check_vocabulary(&self, archive: &Archive) -> Result<()> {
        if self.tokenizer.is_some() {
            return Ok(());
        }
        let tables = [
            format!("{OPEN_CLIP}token_embedding.weight"),
            format!("{CLIP}{TEXT}{TABLE}"),
            format!("{CLIP}{TABLE}"),
            format!("{SDXL_CLIP}{TEXT}{TABLE}"),
            format!("{SDXL_CLIP}{TABLE}"),
            format!("{SDXL_OPEN_CLIP}token_embedding.weight"),
        ];
        let found = archive.shapes().find(|(name, _)| tables.iter().any(|table| table == name));
        let tokens = found.and_then(|(_, shape)| shape.first().copied());
        ensure!(
            tokens.is_none_or(|tokens| tokens == CLIP_TOKENS),
            "the text encoder in {} has {} tokens, but CLIP's vocabulary has {CLIP_TOKENS}: name {}",
            self.path.display(),
            tokens.unwrap_or(0),
            if self.is_sdxl() {
                "a folder with its tokenizers and configs with --model-config"
            } else {
                "the folder of its tokenizer with --tokenizer"
            }
        );
        Ok(())
    }

    /// What the file is taken for.
    fn about(&self) -> Option<String> {
        let Configs { unet, scheduler, .. } = &self.configs;
        if let Some(folder) = &self.config_folder {
            return Some(format!("{} is read by the configs in {}", self.path.display(), folder.path().display()));
        }
        let family = match self.family {
            Family::V1 => "1.x",
            Family::V2 => "2.x",
            Family::Sdxl => "XL",
        };
        Some(format!(
            "{} is taken for Stable Diffusion {family} that predicts {} at {} pixels",
            self.path.display(),
            scheduler.get("prediction_type")?.as_str()?,
            unet.get("sample_size")?.as_i64()? * 8
        ))
    }
}

const TABLE: &str = "embeddings.token_embedding.weight";
/// transformers' name of the text encoder's projection.
const PROJECTION: &str = "text_projection.weight";

/// The tensors below a prefix: name without it, name with it, shape.
fn below<'a>(archive: &'a Archive, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a [i64])> {
    archive.shapes().filter_map(move |(full, shape)| Some((full.strip_prefix(prefix)?, full, shape)))
}

/// A text encoder that has transformers' names already, some without the first part.
fn clip_views(archive: &Archive, prefix: &str) -> Vec<View> {
    const UNUSED: [&str; 3] = ["embeddings.position_ids", "text_projection.weight", "logit_scale"];
    let bare = |name: &'static str| move |full: &str| full == name || full.strip_prefix(TEXT) == Some(name);
    let is_used = |name: &str| !UNUSED.into_iter().any(|unused| bare(unused)(name));
    let with_prefix = |name: &str| if name.starts_with(TEXT) { name.to_owned() } else { format!("{TEXT}{name}") };
    let views = below(archive, prefix).filter(|(name, ..)| is_used(name));
    views.map(|(name, full, _)| View::whole(with_prefix(name), full)).collect()
}

fn number(config: &Map<String, Value>, key: &str) -> usize {
    config.get(key).and_then(Value::as_u64).unwrap_or(0) as usize
}

/// The width of the text that the U-Net's first cross-attention takes.
fn text_width(archive: &Archive) -> Option<i64> {
    let is_key = |name: &str| name.starts_with(UNET) && name.ends_with(".attn2.to_k.weight");
    let (_, shape) = archive.shapes().find(|(name, _)| is_key(name))?;
    shape.get(1).copied()
}

fn family(archive: &Archive, layout: TextLayout) -> Family {
    match layout {
        TextLayout::Sdxl => Family::Sdxl,
        TextLayout::OpenClip => Family::V2,
        TextLayout::Clip if text_width(archive) == Some(1024) => Family::V2,
        TextLayout::Clip => Family::V1,
    }
}

/// Makes sure that the U-Net has the widths of the published models, whose configs are known.
fn known_geometry(path: &Path, archive: &Archive) -> Result<()> {
    let conv_in = format!("{UNET}input_blocks.0.0.weight");
    let channels = archive.shapes().find(|(name, _)| *name == conv_in).and_then(|(_, shape)| shape.first().copied());
    let width = text_width(archive);
    let known =
        channels.is_none_or(|channels| channels == 320) && width.is_none_or(|width| [768, 1024, 2048].contains(&width));
    ensure!(
        known,
        "{} has a U-Net of {} channels for texts of width {}, but Stable Diffusion has 320, and 768 (1.x), 1024 (2.x) or 2048 (XL); of \
         another geometry, name a diffusers folder with its configs by --model-config",
        path.display(),
        channels.unwrap_or(0),
        width.unwrap_or(0)
    );
    Ok(())
}

/// The configs in a folder, for a file that may say otherwise.
fn configs_of(folder: &ModelFolder, path: &Path, options: &ModelOptions, said: &Said) -> Result<Configs> {
    let read = |component: &str| weights::read_config(&folder.component(component).join("config.json"));
    let mut scheduler: Map<String, Value> = weights::read_config(&folder.scheduler_config())?;
    let own = scheduler.get("prediction_type").and_then(Value::as_str).unwrap_or("epsilon");
    match (options.prediction_type, said.prediction) {
        (Some(given), _) => {
            scheduler.insert("prediction_type".to_owned(), given.to_string().into());
        }
        (None, Some(said)) => ensure!(
            said.to_string() == own,
            "{} says that it predicts {said}, but {} says {own:?}: decide with --prediction-type",
            path.display(),
            folder.scheduler_config().display()
        ),
        (None, None) => {}
    }
    let text_encoder_2 = folder.is_sdxl().then(|| read("text_encoder_2")).transpose()?;
    Ok(Configs {
        unet: read("unet")?,
        vae: read("vae")?,
        text_encoder: read("text_encoder")?,
        text_encoder_2,
        scheduler,
    })
}

/// A note of tensors that are no part of the model, except those that many files have and nothing computes with.
fn passed_over(path: &Path, archive: &Archive) -> Option<String> {
    const SCHEDULE: [&str; 10] = [
        "alphas_",
        "betas",
        "global_step",
        "log_one_minus_",
        "logvar",
        "lvlb_weights",
        "posterior_",
        "sqrt_",
        "v_pred",
        "ztsnr",
    ];
    let is_known = |name: &str| {
        [UNET, VAE, CLIP, OPEN_CLIP, SDXL_CLIP, SDXL_OPEN_CLIP]
            .iter()
            .chain(&SCHEDULE)
            .any(|prefix| name.starts_with(prefix))
    };
    let extra: Vec<&str> = archive.shapes().map(|(name, _)| name).filter(|name| !is_known(name)).collect();
    let groups: BTreeSet<&str> = extra.iter().map(|name| name.split('.').next().unwrap_or(name)).collect();
    let mut shown: Vec<String> = groups.iter().take(4).map(|group| format!("{group:?}")).collect();
    if groups.len() > shown.len() {
        shown.push("...".to_owned());
    }
    (!extra.is_empty()).then(|| {
        format!(
            "{} also holds {} tensors that are no part of the model (their names begin with {}); they are passed over",
            path.display(),
            extra.len(),
            shown.join(", ")
        )
    })
}
