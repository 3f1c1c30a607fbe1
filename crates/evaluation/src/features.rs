//! Texts and images as points in CLIP's space.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, Result, ensure};
use attributes::{Demands, Reader};
use clip::{ClipModel, ImageProcessor, Resampler};
use rayon::ThreadPool;
use runs::ClipName;
use tch::{Device, Kind, Tensor};
use tokenizer::{Tokenizer, Truncation};
use weights::Parameters;

use crate::encoding::{prepare, preparers, unit};
use crate::{DinoFeatures, ImageFile, clip_name};

/// A CLIP with all that it needs to take features of texts and of image files.
#[derive(Debug)]
pub struct FeatureExtractor {
    name: ClipName,
    model: ClipModel,
    processor: ImageProcessor,
    tokenizer: Tokenizer,
    device: Device,
    batch_size: usize,
    preparers: ThreadPool,
    parameters: Parameters,
    packed_bytes: u64,
    squash: Option<u32>,
    dino: Option<DinoFeatures>,
    reader: Option<Reader>,
}

impl FeatureExtractor {
    /// Images that the image encoder sees at once, unless [`FeatureExtractor::with_batch_size`] says otherwise.
    pub const BATCH_SIZE: usize = 32;

    /// Loads the folder of a whole CLIP in transformers' layout: config.json, the weights, preprocessor_config.json and
    /// the tokenizer's files. It computes in f32.
    ///
    /// # Errors
    /// When the folder lacks a file or a tower, or its parts do not fit each other.
    pub fn open(folder: &Path, device: Device) -> Result<Self> {
        let to = (Kind::Float, device);
        let (model, parameters) = ClipModel::from_folder(folder, to)?;
        let processor = ImageProcessor::from_folder(folder)?;
        let tokenizer = Tokenizer::load(folder).with_context(|| {
            format!("the CLIP folder {} has no usable tokenizer; put its files beside config.json", folder.display())
        })?;
        let extractor = Self::new(clip_name(folder), model, processor, tokenizer, device)
            .with_context(|| format!("the parts in {} do not fit", folder.display()))?;
        // What is read are features, and those are on the CPU.
        let reader = Reader::open(folder, Device::Cpu)?;
        Ok(Self { parameters, reader, ..extractor })
    }

    /// Puts the parts together; `model` is in f32 on `device`.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn new(
        name: ClipName,
        model: ClipModel,
        processor: ImageProcessor,
        tokenizer: Tokenizer,
        device: Device,
    ) -> Result<Self> {
        let config = model.text_model().config();
        let (tokens, positions) = (tokenizer.embedding_rows(), tokenizer.max_length());
        ensure!(
            tokens <= config.vocab_size,
            "the tokenizer has {tokens} tokens, but the text encoder knows {}",
            config.vocab_size
        );
        ensure!(
            positions as i64 <= config.max_position_embeddings,
            "the tokenizer makes texts of {positions} tokens, but the text encoder takes {}",
            config.max_position_embeddings
        );
        let grey = processor.process_rgb8(&[128; 3], 1, 1)?;
        let side = model.vision_model().config().image_size;
        ensure!(
            grey.size() == [3, side, side],
            "preprocessor_config.json makes images of shape {:?}, but the image encoder takes [3, {side}, {side}]",
            grey.size()
        );
        Ok(Self {
            name,
            model,
            processor,
            tokenizer,
            device,
            batch_size: Self::BATCH_SIZE,
            preparers: preparers()?,
            parameters: Parameters::default(),
            packed_bytes: u64::MAX,
            squash: None,
            dino: None,
            reader: None,
        })
    }

    /// Encodes so many images at once; only speed and memory depend on it.
    pub fn with_batch_size(self, batch_size: usize) -> Self {
        Self { batch_size: batch_size.max(1), ..self }
    }

    /// Lets copies of CLIP's weights, packed for speed on a CPU, take no more than so many bytes; without a limit, they take as
    /// many as the weights. Only those of a CLIP from [`FeatureExtractor::open`] are packed.
    pub fn with_packed_bytes(self, packed_bytes: u64) -> Self {
        Self { packed_bytes, ..self }
    }

    /// Prepares images as Textual Inversion's evaluation does: bicubic without antialiasing, and photos of the subject squashed into
    /// squares of 256 pixels first.
    pub fn as_textual_inversion(mut self) -> Self {
        self.processor.resampler = Resampler::Interpolation;
        Self { squash: Some(256), ..self }
    }

    /// Also scores by a DINO.
    pub fn with_dino(self, dino: DinoFeatures) -> Self {
        Self { dino: Some(dino), ..self }
    }

    /// The DINO that scores too, if there is one.
    pub fn dino(&self) -> Option<&DinoFeatures> {
        self.dino.as_ref()
    }

    /// The reader of what images show that lies beside the CLIP, if there is one.
    pub fn reader(&self) -> Option<&Reader> {
        self.reader.as_ref()
    }

    /// What a prompt asks for that the reader can see; none where there is no reader, or nothing for it to see.
    pub(crate) fn demands(&self, prompt: &str) -> Option<Demands> {
        let demands = Demands::of(self.reader.as_ref()?.attributes(), prompt);
        (demands != Demands::default()).then_some(demands)
    }

    /// Whether images show what is demanded of each (1 or 0), by their features.
    pub(crate) fn obeyed(&self, features: &Tensor, demands: &[Option<&Demands>]) -> Result<Vec<Option<f64>>> {
        let Some(reader) = &self.reader else { return Ok(vec![None; demands.len()]) };
        let readings = tch::no_grad(|| reader.read(features))?;
        let met = |demands: &Demands, reading| f64::from(u8::from(demands.met_by(reading)));
        Ok(demands
            .iter()
            .zip(&readings)
            .map(|(demands, reading)| demands.map(|demands| met(demands, reading)))
            .collect())
    }

    /// A photo of the subject, as it is compared with images.
    pub(crate) fn photo(&self, path: &Path) -> ImageFile {
        ImageFile { squash: self.squash, ..ImageFile::new(path) }
    }

    /// What the user should know of the CLIP's files.
    pub fn notes(&self) -> &[String] {
        self.parameters.notes()
    }

    /// Which CLIP it is.
    pub fn name(&self) -> &ClipName {
        &self.name
    }

    /// What a text loses for being too long, if it is.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn truncation(&self, text: &str) -> Result<Option<Truncation>> {
        Ok(self.tokenizer.encode(text)?.truncation)
    }

    /// The features of texts: [texts, width] of length 1, f32.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn texts<T: AsRef<str>>(&self, texts: &[T]) -> Result<Tensor> {
        ensure!(!texts.is_empty(), "there are no texts to take features of");
        let mut features = Vec::new();
        for chunk in texts.chunks(self.batch_size) {
            let ids = chunk.iter().map(|text| Ok(self.tokenizer.encode(text.as_ref())?.ids));
            let ids = Tensor::from_slice2(&ids.collect::<Result<Vec<_>>>()?).to_device(self.device);
            features.push(unit(|| self.model.text_features(&ids))?);
        }
        Ok(Tensor::cat(&features, 0))
    }

    /// The features of images: [images, width] of length 1, f32. Where there are many, see
    /// [`FeatureExtractor::each_batch`].
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn images(&self, images: &[ImageFile]) -> Result<Tensor> {
        ensure!(!images.is_empty(), "there are no images to take features of");
        let mut features = Vec::new();
        self.each_batch(images, &mut |batch| {
            features.push(batch.shallow_clone());
            Ok(())
        })?;
        Ok(Tensor::cat(&features, 0))
    }

    /// Gives the features of images to `take`, in order, batch by batch: [batch, width] of length 1, f32. While the
    /// image encoder sees one batch, all cores decode and resize the next; memory does not grow with the number of
    /// images.
    ///
    /// # Errors
    /// Names the file that cannot be used; or what `take` returns.
    pub fn each_batch(&self, images: &[ImageFile], take: &mut dyn FnMut(&Tensor) -> Result<()>) -> Result<()> {
        let Self { processor, preparers, batch_size, .. } = self;
        thread::scope(|scope| {
            // One batch waits while one is being made and one being looked at.
            let (sender, batches) = sync_channel(1);
            scope.spawn(move || {
                for chunk in images.chunks(*batch_size) {
                    let batch = preparers.install(|| prepare(chunk, processor));
                    let failed = batch.is_err();
                    // Nobody receives any more after a failure over there.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            });
            // For a single batch it would not pay.
            let _frozen = (images.len() > *batch_size).then(|| self.parameters.frozen(self.packed_bytes));
            for batch in batches {
                let pixel_values = batch?.to_device(self.device);
                take(&unit(|| self.model.image_features(&pixel_values))?)?;
            }
            Ok(())
        })
    }
}
