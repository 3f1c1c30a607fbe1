//! Maps over images against Python.

use golden::Golden;
use heatmaps::{Scale, display, overlay};
use images::RgbImage;
use tch::Tensor;

const SCALES: [(&str, Scale); 2] = [("min_max", Scale::MinMax), ("range", Scale::Range { from: 4.0, to: 6.0 })];

fn golden() -> Golden {
    Golden::open("heatmaps/display.safetensors")
}

fn image(golden: &Golden) -> RgbImage {
    RgbImage::from_raw(72, 48, Vec::<u8>::try_from(golden.get("picture").flatten(0, -1)).unwrap()).unwrap()
}

#[test]
fn a_map_has_the_images_size_and_values_from_0_to_1() {
    let golden = golden();
    for (name, scale) in SCALES {
        let shown = display(&golden.get("heat"), (48, 72), scale).unwrap();
        golden.assert_close(&format!("{name}.heat"), &shown, 1e-6);
    }
}

#[test]
fn the_image_shows_through_where_it_is_cold() {
    let golden = golden();
    let image = image(&golden);
    for (name, scale) in SCALES {
        let over = overlay(&image, &golden.get("heat"), scale).unwrap();
        let expected = Vec::<u8>::try_from(golden.get(&format!("{name}.overlay")).flatten(0, -1)).unwrap();
        assert!(over.as_raw().iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{name}");
    }
    let cold = overlay(&image, &golden.get("heat"), Scale::Range { from: 100.0, to: 200.0 }).unwrap();
    assert_eq!(cold, image);
}

#[test]
fn an_even_map_has_no_hot_place() {
    let shown = display(&golden().get("heat").full_like(0.3), (30, 20), Scale::MinMax).unwrap();
    assert!(shown.abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn what_is_no_map_is_refused() {
    let says = |heat: &Tensor, scale, words: &str| {
        let error = display(heat, (4, 4), scale).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let heat = golden().get("heat");
    says(&heat.unsqueeze(0), Scale::MinMax, "[1, 8, 12]");
    says(&heat.narrow(0, 0, 0), Scale::MinMax, "[0, 12]");
    says(&heat, Scale::Range { from: 1.0, to: 1.0 }, "from 1 to 1");
}
