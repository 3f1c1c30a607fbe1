//! Each piece of work returns the number that Python returns, so that the same work is compared.
#![allow(clippy::unwrap_used, clippy::unreadable_literal)]

use benchmarks::{Settings, Work, measure};

/// `python crates/benchmarks/python/work.py WORK --model fixtures/tiny-sd21 --batch-size 2 --resolution 64 --steps 5
/// --iterations 1 --warm-up 0` for each, torch 2.11.0, diffusers 0.42.1, transformers 5.23.
const CHECKS: [(Work, f64); 20] = [
    (Work::UnetForward, 0.226_945_891_976_356_5),
    (Work::Step("attndreambooth", 0), 1.060_543_894_767_761_2),
    (Work::Step("attndreambooth", 1), 1.060_544_848_442_077_6),
    (Work::Step("attndreambooth", 2), 1.060_544_848_442_077_6),
    (Work::Step("attndreambooth-lora", 2), 1.0605448484420776),
    (Work::Step("textual-inversion", 0), 1.0600037574768066),
    (Work::Step("dreambooth", 0), 1.0615109205245972),
    (Work::Step("ti-db", 0), 1.0605438947677612),
    (Work::Step("custom-diffusion", 0), 2.127572536468506),
    (Work::Step("oft", 0), 2.122189521789551),
    (Work::Step("coft", 0), 2.122189521789551),
    (Work::Step("lora", 0), 1.0615110397338867),
    (Work::Step("neti", 0), 1.0603117942810059),
    (Work::Step("vico", 0), 1.0602364540100098),
    (Work::TextEncoder, 0.784_029_662_609_100_3),
    (Work::VaeEncode, 0.448_132_485_151_290_9),
    (Work::VaeDecode, 0.173_828_899_860_382_08),
    (Work::AdamW, 0.070_219_516_754_150_39),
    (Work::Loading, 217_772.0),
    (Work::Sampling, 12.313_594_818_115_234),
];

#[test]
fn the_work_is_pythons() {
    tch::set_num_threads(1);
    let settings = Settings {
        batch_size: 2,
        resolution: Some(64),
        steps: 5,
        warm_up: 0,
        iterations: 1,
        ..Settings::new(golden::fixtures().join("tiny-sd21"))
    };
    for (work, expected) in CHECKS {
        let measured = measure(work, &settings).unwrap();
        let error = (measured.check - expected).abs() / expected;
        assert!(error < 2e-6, "{work:?}: {} instead of {expected}, {error:.1e} apart", measured.check);
        assert_eq!(measured.seconds.len(), 1);
        assert!(measured.seconds[0] > 0.0 && measured.peak_memory_bytes > 1 << 20);
    }
}

#[test]
fn a_run_is_measured_from_photos_to_files() {
    tch::set_num_threads(1);
    let settings = Settings {
        images: golden::fixtures().join("subjects/penguin"),
        category: "photo".to_owned(),
        changes: ["embedding", "cross_attention", "unet"]
            .map(|phase| (format!("phases.{phase}.steps"), "1".to_owned()))
            .to_vec(),
        warm_up: 0,
        iterations: 1,
        ..Settings::new(golden::fixtures().join("tiny-sd21"))
    };
    let measured = measure(Work::Training, &settings).unwrap();
    assert!(measured.check.is_finite());
    assert!(measured.first_step_seconds.unwrap() > 0.0);
}

#[test]
fn what_cannot_be_timed_says_why() {
    let unknown = "unet-backward".parse::<Work>().unwrap_err().to_string();
    assert!(unknown.starts_with("there is no work \"unet-backward\"; choose one of unet-forward, "), "{unknown}");
    let missing = measure(Work::Features, &Settings::new("nowhere".into())).unwrap_err();
    assert!(format!("{missing:#}").contains("nowhere"), "{missing:#}");
}
