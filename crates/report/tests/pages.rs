//! What pages are made of.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{
    HOSTILE, attended, bare_run, compared, config, evaluated, full_run, image, inspected, logged, row, run_of,
};
use report::{Comparison, StudyOptions, run_page, table_page, table_study, tally};
use runs::{
    AutoStop, BeforeOrAfter, ComparisonRow, Ending, InspectionImage, Measurement, Reason, Stop, StopClip, StopRecord,
    TimestepBin, TrainConfig,
};
use tables::Table;

fn options() -> StudyOptions {
    StudyOptions { questions: 20, seed: 1, reference: None }
}

/// The headings of sections, in their order.
fn headings(page: &str) -> Vec<&str> {
    page.split("<h2>").skip(1).map(|rest| rest.split("</h2>").next().unwrap()).collect()
}

#[test]
fn a_page_has_what_the_run_has_in_its_order() {
    let parent = tempfile::tempdir().unwrap();
    let bare = run_page(&bare_run(parent.path(), "bare", 1e-5)).unwrap();
    assert_eq!(headings(&bare), ["Configuration", "Losses"]);
    let full = run_page(&full_run(parent.path(), "full", 1e-5, 1)).unwrap();
    assert_eq!(
        headings(&full),
        [
            "Configuration",
            "Contact sheet",
            "Losses",
            "Samples",
            "Before and after",
            "Images",
            "Scores",
            "Attention",
            "Embedding"
        ]
    );
    for part in [
        "<h1>my dog</h1>",
        "<dd>dog</dd>",
        "<dd>1 photo</dd>",
        "<dd>30 steps</dd>",
        "<dd>1 min 15 s</dd>",
        "phase 2, unet, step 10",
        "scored by tiny-clip",
        "[V] 12.5 %",
        "puppy",
        "2.11.0",
    ] {
        assert!(full.contains(part), "{part}");
    }
}

#[test]
fn an_image_of_the_comparison_is_not_shown_again() {
    let parent = tempfile::tempdir().unwrap();
    let run = full_run(parent.path(), "run", 1e-5, 1);
    // As `train` ends: the comparison shows images of the evaluation, by relative paths: `of_each` of the `first` ones of
    // three prompts with two images each.
    let page = |first: usize, of_each: usize| {
        let file = |prompt: usize, image: usize| format!("../evaluation/three/subject/{prompt:03}-{image:02}.png");
        let rows = (0..first).map(|prompt| {
            let images = (0..of_each).map(|number| file(prompt, number).into()).collect();
            ComparisonRow { prompt: "a dog".into(), seed: None, images }
        });
        compared(&run.join("comparison"), rows.collect());
        run_page(&run).unwrap()
    };
    let images = |page: &str| {
        let section = page.split_once("id=\"images\"").map(|(_, rest)| rest.split("</section>").next().unwrap());
        section.map_or(0, |section| section.matches("<img ").count())
    };
    assert_eq!([page(0, 0), page(2, 1)].map(|page| images(&page)), [6, 4]);
    let all = page(3, 2);
    assert!(headings(&all).contains(&"Before and after") && !headings(&all).contains(&"Images"));
}

#[test]
fn a_run_of_a_single_photo_is_called_by_its_category() {
    let parent = tempfile::tempdir().unwrap();
    let runs = ["a", "b"].map(|name| full_run(parent.path(), name, 1e-5, name.len() as u8));
    for run in &runs {
        let config = fs::read_to_string(run.join("config.json")).unwrap();
        assert!(config.contains("my_dog\""));
        fs::write(run.join("config.json"), config.replace("my_dog\"", "my_dog/0.png\"")).unwrap();
    }
    let page = run_page(&runs[0]).unwrap();
    assert!(page.contains("<h1>dog</h1>") && page.contains("<dd>1 photo</dd>"));
    // A study shows the photo without being told where it is.
    assert!(Comparison::open(&runs).unwrap().study(&options()).is_ok());
}

#[test]
fn a_run_that_has_not_begun_or_not_ended_says_so() {
    let parent = tempfile::tempdir().unwrap();
    let run = bare_run(parent.path(), "run", 1e-5);
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let half: String = log.split_inclusive('\n').take(7).collect();
    fs::write(run.join("log.jsonl"), half).unwrap();
    assert!(run_page(&run).unwrap().contains("<dd>7 of 30 steps so far</dd>"));
    fs::remove_file(run.join("log.jsonl")).unwrap();
    assert!(run_page(&run).unwrap().contains("<dd>0 of 30 steps so far</dd>"));
}

#[test]
fn no_text_becomes_markup_and_nothing_is_outside_the_file() {
    let parent = tempfile::tempdir().unwrap();
    let runs = [full_run(parent.path(), "a", 1e-5, 1), full_run(parent.path(), "b", 2e-5, 2)];
    let comparison = Comparison::open(&runs).unwrap();
    let pages = [run_page(&runs[0]).unwrap(), comparison.page(4).unwrap(), comparison.study(&options()).unwrap()];
    for page in pages {
        // One end for each script of ours, and no element that a prompt has brought.
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains("onerror=\"") && !page.contains("src=\"x\"") && !page.contains("<b>dog"));
        for tag in page.split("<img ").skip(1).map(|rest| rest.split('>').next().unwrap()) {
            assert!(tag.starts_with("src=\"data:image/") && tag.contains(" alt=\""), "{}", &tag[..60]);
        }
        // The only address is the name of a language.
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("://"));
    }
}

#[test]
fn damaged_files_are_named_in_one_sentence() {
    let parent = tempfile::tempdir().unwrap();
    let run = full_run(parent.path(), "run", 1e-5, 1);
    let says = |words: &[&str]| {
        let error = format!("{:#}", run_page(&run).unwrap_err());
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    };
    let whole = fs::read(run.join("samples.png")).unwrap();
    fs::write(run.join("samples.png"), &whole[..whole.len() / 2]).unwrap();
    says(&["samples.png", "damaged or half-written", "remove it or make it again"]);
    fs::write(run.join("samples.png"), whole).unwrap();
    fs::write(run.join("evaluation/three/scores.json"), "{").unwrap();
    says(&["evaluation/three/scores.json is not the scores of an evaluation", "line 1 column 1"]);
    let error = run_page(parent.path()).unwrap_err();
    assert!(error.to_string().contains("is not the folder of a training run"));
}

/// A page goes to others: no record and no link may put another file of the disk into it.
#[cfg(unix)]
#[test]
fn images_outside_of_the_run_are_not_embedded() {
    let parent = tempfile::tempdir().unwrap();
    let secret = parent.path().join("secret.png");
    image(&secret, 16, 7);
    let absolute = secret.to_str().unwrap();
    let in_comparison = |run: &Path, file: &str| {
        let row = ComparisonRow { prompt: String::new(), seed: Some(0), images: vec![file.into()] };
        compared(&run.join("comparison"), vec![row]);
    };
    let in_log = |run: &Path, file: &str| logged(&run.join("images"), &[(file, "a dog")]);
    let link = |run: &Path, name: &str| {
        fs::create_dir_all(run.join(name).parent().unwrap()).unwrap();
        let _ = fs::remove_file(run.join(name));
        std::os::unix::fs::symlink(&secret, run.join(name)).unwrap();
    };
    type Attack<'a> = &'a dyn Fn(&Path);
    let attacks: [Attack<'_>; 11] = [
        &|run| in_comparison(run, "../../secret.png"),
        &|run| in_comparison(run, absolute),
        &|run| in_log(run, "../../secret.png"),
        &|run| in_log(run, absolute),
        &|run| {
            let images = vec![("secret.png".to_owned(), 0)];
            evaluated(&run.join("evaluation/three"), "../../..".as_ref(), 0.5, vec![(String::new(), images)]);
        },
        &|run| {
            let image = InspectionImage { file: absolute.into(), moment: BeforeOrAfter::Before, seed: 0 };
            inspected(&run.join("inspect"), vec![image]);
        },
        &|run| attended(&run.join("attend"), vec![row("", "../../secret.png".into(), Vec::new())]),
        &|run| link(run, "contact_sheet.png"),
        &|run| link(run, "samples.png"),
        &|run| link(run, "validation/1-embedding-00010.png"),
        &|run| {
            in_log(run, "0.png");
            link(run, "images/0.png");
        },
    ];
    let other = full_run(parent.path(), "other", 1e-5, 2);
    for (number, attack) in attacks.iter().enumerate() {
        let run = bare_run(parent.path(), &format!("run-{number}"), 1e-5);
        attack(&run);
        let error = run_page(&run).unwrap_err().to_string();
        assert!(error.contains("lies outside of the run's folder"), "{number}: {error}");
        if let Ok(comparison) = Comparison::open(&[run, other.clone()]) {
            assert!(!comparison.page(4).unwrap().contains("<img "), "{number}");
        }
    }
    // Inside, a record may name any file.
    let run = bare_run(parent.path(), "run", 1e-5);
    image(&run.join("images/0.png"), 16, 7);
    for file in ["../images/0.png", run.join("images/0.png").to_str().unwrap()] {
        in_comparison(&run, file);
        assert_eq!(run_page(&run).unwrap().matches("<img ").count(), 1);
    }
}

/// A section is left out because its file is missing, never because a key has another name.
#[test]
fn a_renamed_key_is_an_error_that_names_the_file_and_the_key() {
    let parent = tempfile::tempdir().unwrap();
    let run = full_run(parent.path(), "run", 1e-5, 1);
    let cases = [
        ("config.json", "\"category\"", "category"),
        ("comparison/comparison.json", "\"columns\"", "columns"),
        ("evaluation/three/scores.json", "\"images_per_prompt\"", "images_per_prompt"),
        ("evaluation/three/scores.json", "\"clip_t\"", "clip_t"),
        ("attend/attend.json", "\"overlays\"", "overlays"),
        ("inspect/inspect.json", "\"nearest\"", "nearest"),
    ];
    for (file, key, named) in cases {
        let path = run.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(key), "{file} has no {key}");
        fs::write(&path, text.replacen(key, "\"renamed\"", 1)).unwrap();
        let error = format!("{:#}", run_page(&run).unwrap_err());
        assert!(error.contains(file.rsplit('/').next().unwrap()), "{file}: {error}");
        assert!(error.contains(named) || error.contains("renamed"), "{file}: {error}");
        fs::write(&path, text).unwrap();
    }
    assert!(run_page(&run).is_ok());
}

/// A study shows a photo that the run has learned from, which is elsewhere: it must be that very file.
#[test]
fn a_study_shows_no_other_file_than_a_photo_of_the_run() {
    let parent = tempfile::tempdir().unwrap();
    image(&parent.path().join("secret.png"), 16, 7);
    let runs = ["a", "b"].map(|name| full_run(parent.path(), name, 1e-5, name.len() as u8));
    assert!(Comparison::open(&runs).unwrap().study(&options()).is_ok());
    for run in &runs {
        let config = fs::read_to_string(run.join("config.json")).unwrap();
        fs::write(run.join("config.json"), config.replace("0.png", "../secret.png")).unwrap();
    }
    let error = Comparison::open(&runs).unwrap().study(&options()).unwrap_err().to_string();
    assert!(error.contains("--reference"), "{error}");
}

#[test]
fn control_and_bidirectional_characters_are_shown_escaped() {
    let parent = tempfile::tempdir().unwrap();
    let hostile = "dog\u{202e}gnp.\u{1b}[2J\u{85}";
    let runs = [(format!("a{hostile}"), "x"), ("b".to_owned(), "y")].map(|(name, value)| {
        let prompt = format!("a [V] {value}{hostile}");
        let config = |photos: &Path| runs::TrainConfig { category: hostile.into(), prompt, ..config(photos, 1e-5) };
        run_of(parent.path(), &name, config)
    });
    for run in &runs {
        image(&run.join("images/0.png"), 16, 1);
        logged(&run.join("images"), &[("0.png", hostile)]);
    }
    let comparison = Comparison::open(&runs).unwrap();
    let page = run_page(&runs[0]).unwrap();
    for text in [&page, &comparison.page(4).unwrap(), &comparison.study(&options()).unwrap(), &comparison.table()] {
        let forbidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(forbidden), "{:?}", text.matches(forbidden).next());
    }
    for shown in [r"<h1>my dog</h1>", r"dog\u{202e}gnp.\u{1b}[2J\u{85}", r"run adog\u{202e}"] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn a_comparison_shows_what_differs_and_shared_images_side_by_side() {
    let parent = tempfile::tempdir().unwrap();
    let runs = [full_run(parent.path(), "a", 1e-5, 1), full_run(parent.path(), "b", 2e-6, 2)];
    let comparison = Comparison::open(&runs).unwrap();
    let score = "0.510 [0.410, 0.610]  0.520 [0.420, 0.620]";
    let table = [
        "                                      a                     b".to_owned(),
        "phases.unet.learning_rate             1e-5                  2e-6".to_owned(),
        format!("three: CLIP-I                         {score}"),
        format!("three: CLIP-T                         {score}"),
        format!("three: CLIP-T without the class noun  {score}"),
    ];
    assert_eq!(comparison.table(), table.join("\n"));
    let record = comparison.record();
    assert_eq!(record.settings_that_differ["phases.unet.learning_rate"], ["1e-5", "2e-6"]);
    assert_eq!(record.runs[1].scores["three"].clip_i.mean, 0.52);
    // Three prompts of two seeds and the one of the comparison with the base, from two runs.
    let images = |page: String| page.matches("<img ").count();
    assert_eq!(images(comparison.page(4).unwrap()), 2 * (3 * 2 + 1));
    assert_eq!(images(comparison.page(1).unwrap()), 2 * (3 + 1));
}

#[test]
fn a_study_asks_about_shared_images_and_tells_nothing_of_runs() {
    let parent = tempfile::tempdir().unwrap();
    let runs = ["run-alpha", "run-beta", "run-gamma"].map(|name| full_run(parent.path(), name, 1e-5, name.len() as u8));
    let comparison = Comparison::open(&runs).unwrap();
    let study = |questions, seed| comparison.study(&StudyOptions { questions, seed, ..options() }).unwrap();
    let page = study(20, 1);
    // Seven shared images with each of two runs.
    assert_eq!(page.matches("<section class=\"question\"").count(), 14);
    assert_eq!(study(5, 1).matches("<section class=\"question\"").count(), 5);
    assert!(!["run-alpha", "run-beta", "run-gamma", "parameters", "0.png"].iter().any(|word| page.contains(word)));
    assert!(page.contains("data-prompt=\"a dog on the beach\""));
    assert!(study(20, 1) == page && study(20, 2) != page);
}

#[test]
fn a_tables_study_is_blind_and_its_answers_come_to_the_tables_page() {
    let parent = tempfile::tempdir().unwrap();
    let (table, plan) = common::table(parent.path());
    let photo = parent.path().join("photo.png");
    image(&photo, 32, 9);
    let photos = [photo];
    let page = table_study(&table, &plan, parent.path(), &photos, &options()).unwrap();
    // Of one subject there are images of two prompts, by the reference and one other method.
    assert_eq!(page.matches("<section class=\"question\"").count(), 2);
    assert_eq!(page.matches("class=\"photo\"").count(), 1);
    assert!(!["rex", "ours", "TI &amp;", ".png"].iter().any(|word| page.contains(word)));
    let value = |name: &str| page.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
    let answers = parent.path().join("answers.json");
    let file = serde_json::json!({
        "study": value("data-study"), "session": "1", "sealed": value("data-sealed"),
        "answers": [{"question": 0, "choice": "left"}, {"question": 1, "choice": "right"}],
    });
    fs::write(&answers, file.to_string()).unwrap();
    let tally = tally(&[answers]).unwrap();
    assert_eq!((tally.preferences.len(), tally.preferences[0].answers), (1, 2));
    let page = table_page(&table, &plan, parent.path(), Some(&tally)).unwrap();
    assert!(
        page.contains("of this participant&#39;s answers alone")
            || page.contains("of this participant's answers alone")
    );
    assert!(!page.contains("Not collected"));
    let nobody = Table { subjects: Vec::new(), ..table };
    let error = table_study(&nobody, &plan, parent.path(), &photos, &options()).unwrap_err().to_string();
    assert!(error.contains("nothing to choose from"), "{error}");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let parent = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| bare_run(parent.path(), name, 1e-5));
    let says = |error: anyhow::Error, words: &str| assert!(format!("{error:#}").contains(words), "{error:#}");
    says(Comparison::open(std::slice::from_ref(&a)).unwrap_err(), "two runs or more");
    says(Comparison::open(&[a.clone(), a.clone()]).unwrap_err(), "given twice");
    says(Comparison::open(&[a.clone(), parent.path().join("c")]).unwrap_err(), "not the folder of a training run");
    let comparison = Comparison::open(&[a.clone(), b.clone()]).unwrap();
    assert!(comparison.page(4).unwrap().contains("the same configuration"));
    says(comparison.study(&options()).unwrap_err(), "no images of the same prompt and seed");
    for run in [&a, &b] {
        image(&run.join("images/0.png"), 16, 1);
        logged(&run.join("images"), &[("0.png", HOSTILE)]);
    }
    let comparison = Comparison::open(&[a, b.clone()]).unwrap();
    assert!(comparison.study(&options()).is_ok());
    fs::remove_file(parent.path().join("my_dog/0.png")).unwrap();
    says(comparison.study(&options()).unwrap_err(), "--reference");
    let config = fs::read_to_string(b.join("config.json")).unwrap();
    fs::write(b.join("config.json"), config.replace("\"sha256\": \"", "\"sha256\": \"00")).unwrap();
    let comparison = Comparison::open(&[parent.path().join("a"), b]).unwrap();
    says(comparison.study(&options()).unwrap_err(), "b and a have learned from different photos");
}

#[test]
fn a_run_that_stops_shows_the_curve_by_which_it_does() {
    let parent = tempfile::tempdir().unwrap();
    let clip = StopClip { model: "clip".into(), floor: 0.75, ..StopClip::default() };
    let stop = Some(Stop::Auto(AutoStop { clip: Some(clip), ..AutoStop::default() }));
    let run = run_of(parent.path(), "run", |photos| TrainConfig { stop, ..config(photos, 1e-5) });
    assert_eq!(headings(&run_page(&run).unwrap()), ["Configuration", "Losses"]);
    let at = |step: usize, alignment: Option<f64>| Measurement {
        step,
        gains: vec![0.1 * step as f64, 0.3],
        gain: 0.05 * step as f64 + 0.15,
        text_alignment: alignment,
        seconds: 1.5,
    };
    let mut record = StopRecord {
        phase: "unet".to_owned(),
        bins: [[0, 500], [500, 1000]].map(|[from, to]| TimestepBin { from, to, base_loss: 0.2 }).to_vec(),
        text_alignment: Some(0.3),
        measurements: vec![at(0, Some(0.9)), at(5, None), at(10, None), at(15, Some(0.8))],
        ending: None,
    };
    let page = |record: &StopRecord| {
        record.write(&run).unwrap();
        assert_eq!(StopRecord::read(&run).unwrap().as_ref(), Some(record));
        run_page(&run).unwrap()
    };
    let on_its_way = page(&record);
    assert_eq!(headings(&on_its_way), ["Configuration", "Losses", "Adaptive length"]);
    for part in
        ["30 of at most 30 steps so far", "Phase unet is on its way, of at most 15 steps", "timesteps 500 to 999"]
    {
        assert!(on_its_way.contains(part), "{part}");
    }
    assert!(!on_its_way.contains("is taken"));
    record.ending = Some(Ending { reason: Reason::Levelled, done: 15, taken: 10 });
    let ended = page(&record);
    for part in [
        "30 steps, of which the last 5 are not taken",
        "Phase unet stopped after 15 of 15 steps, as what it gains has levelled out, and took step 10.",
        "4 measurements took 6 s.",
        "step 10 is taken",
        "text alignment, 1 is the base model&#39;s",
        "floor",
    ] {
        assert!(ended.contains(part), "{part}");
    }
}
