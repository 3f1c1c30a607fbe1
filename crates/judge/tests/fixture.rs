//! The judge in `fixtures` sees what its card says.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use judge::{Examination, Labelled, Sight};
use tch::Device;

#[test]
fn it_sees_what_its_card_says() {
    let miniature = Path::new("../../fixtures/miniature");
    let folder = miniature.join("judge");
    let examination = Examination::open(&folder.join("examination")).unwrap();
    let check = judge::check(&folder, miniature, &examination, Device::Cpu).unwrap();
    for sight in [&check.pristine, &check.rebuilt] {
        let Sight { nouns, characters, .. } = sight;
        assert!(nouns.image_to_text >= 0.85 && nouns.text_to_image >= 0.85, "{sight:?}");
        assert!(sight.clip_t_characters >= 0.9 * sight.clip_t_nouns && sight.subject_gap >= 0.25, "{sight:?}");
        assert!(sight.right_background >= 0.95 && sight.right_color >= 0.95 && sight.right_style >= 0.95, "{sight:?}");
        assert!(sight.nearest_subject >= 0.95 && characters.image_to_text >= 0.8, "{sight:?}");
        // What falls short of its target: a better judge changes this, and its card.
        assert!((0.7..0.85).contains(&characters.text_to_image), "{sight:?}");
    }
    // The third is the caption of a character that has gone through the VAE.
    assert_eq!(check.failures().len(), 3, "{:?}", check.failures());
    let labelled = Labelled::open(&folder.join("examination")).unwrap().unwrap();
    let agreement = labelled.agreement(&folder, Device::Cpu).unwrap();
    let reader = attributes::Reader::open(&folder, Device::Cpu).unwrap().unwrap();
    assert_eq!(reader.agreement(), Some(agreement.obeyed));
    assert_eq!(agreement.obeyed.of, 100);
}
