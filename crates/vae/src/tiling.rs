//! Batches in slices and images in tiles, so that memory does not grow with them.

use tch::{Kind, Tensor};

/// How a batch is divided before the model sees it.
///
/// Slicing a batch changes nothing but the order of rounding. Tiles do change the result: attention and normalisation
/// see one tile at a time, so colours may differ slightly from tile to tile. Neighbouring tiles overlap by a quarter of
/// their side and are blended linearly there.
///
/// `examples/memory.rs` measures what it saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// One image at a time (diffusers' `enable_slicing`).
    pub slice_batch: bool,
    /// The side of square tiles in pixels of the image, a multiple of 4 · [`crate::Config::downscale_factor`] (so of
    /// 32 for Stable Diffusion). Images that are not larger stay whole. diffusers' `enable_tiling` is
    /// `Some(config.sample_size)`.
    pub tile_size: Option<i64>,
}

impl Tiling {
    /// Everything at once.
    pub const NONE: Self = Self { slice_batch: false, tile_size: None };

    /// One image at a time, in tiles of 512×512 pixels where it is larger: the memory of a 512×512 image, for any
    /// batch and size.
    pub const BOUNDED: Self = Self { slice_batch: true, tile_size: Some(512) };
}

/// Applies `run` to overlapping tiles of `input` [batch, channels, height, width] and blends what they become.
///
/// Tiles have the side `input_tile` and become tiles of the side `output_tile`; both are multiples of 4. Those at the
/// right and bottom may be smaller. Follows diffusers' `tiled_decode` and `_tiled_encode` step by step, with one row of
/// tiles in memory at a time.
pub(crate) fn in_tiles(input: &Tensor, input_tile: i64, output_tile: i64, run: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let (height, width) = (input.size()[2], input.size()[3]);
    let stride = input_tile - input_tile / 4;
    let overlap = output_tile / 4;
    let starts = |size: i64| (0..(size + stride - 1) / stride).map(move |i| i * stride);

    let mut above: Vec<Tensor> = Vec::new();
    let mut finished = Vec::new();
    for y in starts(height) {
        let mut row: Vec<Tensor> = Vec::new();
        for x in starts(width) {
            let tile = input.narrow(2, y, input_tile.min(height - y)).narrow(3, x, input_tile.min(width - x));
            let mut tile = run(&tile);
            // The neighbours are blended already, with their own neighbours.
            if let Some(above) = above.get(row.len()) {
                tile = blend(above, &tile, 2, overlap);
            }
            if let Some(left) = row.last() {
                tile = blend(left, &tile, 3, overlap);
            }
            row.push(tile);
        }
        // What lies beyond is the overlap with the next tile, which is in that tile.
        let cropped = row.iter().map(|tile| crop(tile, output_tile - overlap));
        finished.push(Tensor::cat(&cropped.collect::<Vec<_>>(), 3));
        above = row;
    }
    Tensor::cat(&finished, 2)
}

/// The tile `after`, whose start passes gradually over from the end of the tile `before` along `dim`.
fn blend(before: &Tensor, after: &Tensor, dim: i64, overlap: i64) -> Tensor {
    let size = |tile: &Tensor| if dim == 2 { tile.size()[2] } else { tile.size()[3] };
    let overlap = overlap.min(size(before)).min(size(after));
    let ramp = Tensor::arange(overlap, (Kind::Double, after.device())) / overlap;
    let ramp = if dim == 2 { ramp.unsqueeze(1) } else { ramp };
    let fading: Tensor = 1.0 - &ramp;
    let end = before.narrow(dim, size(before) - overlap, overlap) * fading.to_kind(after.kind());
    let mixed = end + after.narrow(dim, 0, overlap) * ramp.to_kind(after.kind());
    Tensor::cat(&[mixed, after.narrow(dim, overlap, size(after) - overlap)], dim)
}

fn crop(tile: &Tensor, limit: i64) -> Tensor {
    tile.narrow(2, 0, limit.min(tile.size()[2])).narrow(3, 0, limit.min(tile.size()[3]))
}
