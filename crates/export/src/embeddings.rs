//! The embedding of a new token, in a file of its own.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};
use weights::{Archive, OpenError};

/// The names of a token's embeddings for SDXL's two text encoders, as ComfyUI, diffusers and kohya's scripts know them.
const SDXL: [&str; 2] = ["clip_l", "clip_g"];

/// Writes `{placeholder: rows}`, where `rows` are the token's embeddings [vectors, width]; for SDXL, of whose text encoders they have
/// the widths `widths`, `{clip_l: ..., clip_g: ...}`.
///
/// diffusers' `load_textual_inversion` takes the token's name from the tensor's; A1111's web UI and ComfyUI take it from
/// the file's. For programs that know a file by its tensor's name, give `form.key(placeholder)` of an
/// `options::EmbeddingForm`.
///
/// # Errors
/// When `rows` are not embeddings, or the file cannot be written.
pub fn save_embeddings(path: &Path, placeholder: &str, rows: &Tensor, widths: &[i64]) -> Result<()> {
    check_rows(&format!("the embedding of {placeholder}"), rows, widths.iter().sum())?;
    match *widths {
        [first, second] => {
            let [of_first, of_second] = [(0, first), (first, second)].map(|(at, width)| rows.narrow(1, at, width));
            weights::save(path, [(SDXL[0], &of_first.contiguous()), (SDXL[1], &of_second.contiguous())])
        }
        _ => weights::save(path, [(placeholder, rows)]),
    }
}

/// The embeddings [vectors, width] of a token in `archive`: a tensor of its name, or SDXL's two beside each other.
///
/// # Errors
/// When a tensor cannot be read, or SDXL's two do not belong together.
pub fn embedding_in(archive: &Archive, placeholder: &str) -> Result<Option<Tensor>> {
    if let Some(rows) = archive.tensor(placeholder)? {
        return Ok(Some(rows));
    }
    let [Some(first), Some(second)] = [archive.tensor(SDXL[0])?, archive.tensor(SDXL[1])?] else { return Ok(None) };
    let two = |rows: Tensor| if rows.dim() == 1 { rows.unsqueeze(0) } else { rows };
    let (first, second) = (two(first), two(second));
    ensure!(
        first.dim() == 2 && second.dim() == 2 && first.size()[0] == second.size()[0],
        "{} and {} have shapes {:?} and {:?}, but are of the same token",
        SDXL[0],
        SDXL[1],
        first.size(),
        second.size()
    );
    Ok(Some(Tensor::cat(&[first, second], 1)))
}

/// The name of an embedding in prompts of A1111's web UI: that of its file. In ComfyUI `embedding:` stands before it.
pub fn name_in_prompts(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads the embedding of a token for a model whose text encoder has the width `widths[0]`, or for SDXL with its two widths: the
/// token's name and its embeddings [vectors, width] in f32, SDXL's beside each other.
///
/// Files with a single tensor are understood, whatever it is called, and those of kohya's scripts (`emb_params`), of
/// OneTrainer (`emp_params`) and with `clip_l` alone. Where the tensor's name says nothing, the token's name is the file's,
/// without its ending.
///
/// # Errors
/// When the file cannot be read, holds something else, or belongs to a model of another family.
pub fn load_embeddings(path: &Path, widths: &[i64]) -> Result<(String, Tensor)> {
    /// Names that do not name a token.
    const GENERIC: [&str; 4] = ["emb_params", "emp_params", "clip_l", "*"];
    let shown = path.display();
    let archive = match Archive::open(path) {
        Err(OpenError::Pickle { .. }) => bail!(
            "{shown} is a pickle file, which may run code when it is read and is therefore refused; convert it with \
             the script in docs/methods/textual-inversion.md"
        ),
        opened => opened?,
    };
    let names: Vec<&str> = archive.shapes().map(|(name, _)| name).collect();
    let name = match names[..] {
        ["clip_g", "clip_l"] if widths.len() == 1 => bail!(
            "{shown} holds an embedding for the two text encoders of Stable Diffusion XL (clip_l, clip_g), but this \
             model has one; use an embedding for Stable Diffusion 1.x or 2.x"
        ),
        ["clip_g", "clip_l"] => {
            for (name, width) in SDXL.iter().zip(widths) {
                let shape = archive.shapes().find(|(known, _)| known == name).map(|(_, shape)| shape);
                let found = shape.and_then(|shape| shape.last().copied()).unwrap_or(0);
                ensure!(
                    found == *width,
                    "{name} in {shown} has width {found}, but this model's text encoder has {width}; use an embedding that was \
                     learned for the same model"
                );
            }
            let rows = embedding_in(&archive, "").with_context(|| shown.to_string())?;
            let rows = rows.with_context(|| format!("{shown} has no embedding"))?;
            check_rows(&shown.to_string(), &rows, widths.iter().sum())?;
            return Ok((name_in_prompts(path), rows.to_kind(Kind::Float)));
        }
        _ if names.iter().any(|name| name.ends_with("_out")) && names.len() > 1 => bail!(
            "{shown} holds an embedding that OneTrainer learned for the output of text encoders ({}), which has no place among \
             tokens; train it without \"output embedding\"",
            first_few(&names)
        ),
        [name]
            if widths.len() == 2 && archive.shapes().any(|(_, shape)| shape.last() == Some(&widths.iter().sum())) =>
        {
            bail!(
                "{shown} holds the embeddings of {name} as a run of several subjects keeps them: give the run with --run"
            )
        }
        _ if widths.len() == 2 => bail!(
            "{shown} holds no embedding for SDXL, which has two text encoders and needs the tensors clip_l and clip_g; use an \
             embedding that was learned for SDXL"
        ),
        ["emp_params_out"] => bail!(
            "{shown} holds an embedding that OneTrainer learned for the text encoder's output (emp_params_out), which \
             has no place among its tokens; train it without \"output embedding\""
        ),
        [name] => name,
        _ => match names.iter().find(|name| GENERIC.contains(name)) {
            Some(name) => name,
            None => bail!(
                "{shown} holds {} tensors ({}), but the embedding of a token is one; give the file of an embedding for \
                 Stable Diffusion 1.x or 2.x",
                names.len(),
                first_few(&names)
            ),
        },
    };
    let tensor = archive.tensor(name)?.with_context(|| format!("{shown} has no tensor {name}"))?;
    let rows = if tensor.dim() == 1 { tensor.unsqueeze(0) } else { tensor };
    check_rows(&shown.to_string(), &rows, widths.iter().sum())?;
    let token = if GENERIC.contains(&name) { name_in_prompts(path) } else { name.to_owned() };
    Ok((token, rows.to_kind(Kind::Float)))
}

/// Checks that `rows` are embeddings for a text encoder of width `expected`.
pub(crate) fn check_rows(what: &str, rows: &Tensor, expected: i64) -> Result<()> {
    let size = rows.size();
    ensure!(
        size.len() == 2 && size[0] > 0 && rows.is_floating_point(),
        "{what} is a tensor of shape {size:?} and type {:?}, but embeddings are floating-point numbers of shape [vectors, width]",
        rows.kind()
    );
    ensure!(
        size[1] == expected,
        "{what} has width {}, but this model's text encoder has {}; use an embedding that was learned for the same family",
        with_family(size[1]),
        with_family(expected)
    );
    ensure!(bool::try_from(rows.isfinite().all())?, "{what} holds NaN or infinite values; train it again");
    Ok(())
}

/// A width, and which models have it.
fn with_family(width: i64) -> String {
    match width {
        768 => "768 (Stable Diffusion 1.x)".to_owned(),
        1024 => "1024 (Stable Diffusion 2.x)".to_owned(),
        2048 => "2048 (SDXL)".to_owned(),
        other => other.to_string(),
    }
}

fn first_few(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [a, b, c, _, ..] => format!("{a}, {b}, {c}, ..."),
        few => few.join(", "),
    }
}
