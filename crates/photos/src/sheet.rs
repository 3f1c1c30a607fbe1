//! What the model will see, on one page.

use images::Grid;
use rayon::prelude::*;

use crate::folder::Photo;
use crate::resample::resize;
use crate::view::View;

/// Views of photos, at most `side` pixels large, with the names of their files and what was done to them.
pub fn contact_sheet(views: &[(&Photo, View)], columns: usize, side: u32) -> Grid {
    let cells: Vec<_> = views
        .par_iter()
        .map(|(photo, view)| {
            let picture = view.render(&photo.pixels);
            (if side > 0 && side < view.resolution { resize(&picture, side) } else { picture }, caption(photo, view))
        })
        .collect();
    let mut grid = Grid::new(columns);
    for (picture, caption) in cells {
        grid.push(picture, caption);
    }
    grid
}

fn caption(photo: &Photo, view: &View) -> String {
    let turned = view.angle.map_or(String::new(), |angle| format!(" {angle:+.0}\u{b0}"));
    let mirrored = if view.flip { " mirrored" } else { "" };
    format!("{}{turned}{mirrored}", photo.name())
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn cells_say_what_was_done_and_are_no_larger_than_asked() {
        let photo = Photo { path: "a/dog.jpg".into(), sha256: String::new(), pixels: RgbImage::new(40, 30) };
        let straight = View { angle: None, flip: false, left: 0, top: 0, resolution: 60 };
        let turned = View { angle: Some(-12.4), flip: true, ..straight.clone() };
        assert_eq!(caption(&photo, &straight), "dog.jpg");
        assert_eq!(caption(&photo, &turned), "dog.jpg -12\u{b0} mirrored");
        let views = [(&photo, straight), (&photo, turned)];
        // Gaps of 8 pixels between and around.
        assert_eq!(contact_sheet(&views, 2, 24).draw().width(), 8 + 2 * (24 + 8));
        assert_eq!(contact_sheet(&views, 2, 100).draw().width(), 8 + 2 * (60 + 8));
    }
}
