//! What must hold whatever the maps, and what is said about misuse.
#![allow(clippy::unwrap_used)]

use golden::relative_error;
use regularizer::{AttentionRegularizer, Batch, Category, Config, Mode};
use tch::{Kind, Tensor};
use unet::{AttentionObserver, CrossAttentionLayer};

/// Probabilities [batch, tokens, heads, pixels] of two layers.
fn maps(seed: u64, batch: i64, tokens: i64) -> Vec<Tensor> {
    let map = |(seed, heads, pixels)| {
        (libtorch::random::normal(seed, &[batch, tokens, heads, pixels]) * 2.0).softmax(1, Kind::Float)
    };
    [(seed, 3, 64), (seed + 1, 5, 16)].map(map).into()
}

fn regularizer(config: &Config, placeholder: &[i64], category: &[i64]) -> AttentionRegularizer {
    AttentionRegularizer::new(config, placeholder, category).unwrap()
}

fn show(regularizer: &mut AttentionRegularizer, maps: &[Tensor]) {
    let tokens = Tensor::from_slice(regularizer.tokens());
    for (index, map) in maps.iter().enumerate() {
        let (name, size) = (format!("layer {index}"), map.size());
        let layer = CrossAttentionLayer { name: &name, index, heads: size[2], height: 1, width: size[3] };
        regularizer.observe(&layer, &map.index_select(1, &tokens));
    }
}

fn loss(config: &Config, maps: &[Tensor]) -> Tensor {
    let mut regularizer = regularizer(config, &[1], &[2]);
    show(&mut regularizer, maps);
    regularizer.finish().unwrap().loss
}

fn modes() -> [Config; 2] {
    [Mode::PerLayer, Mode::Pooled].map(|mode| Config { mode, ..Config::default() })
}

#[test]
fn equal_attention_costs_nothing() {
    for config in modes() {
        for map in maps(1, 2, 4) {
            let same = map.index_select(1, &Tensor::from_slice(&[0i64, 1, 1, 3])).set_requires_grad(true);
            let loss = loss(&config, std::slice::from_ref(&same));
            assert_eq!(loss.double_value(&[]), 0.0);
            loss.backward();
            assert_eq!(same.grad().abs().max().double_value(&[]), 0.0);
        }
        assert!(loss(&config, &maps(1, 2, 4)).double_value(&[]) > 0.0);
    }
}

#[test]
fn where_a_word_acts_does_not_matter() {
    for config in modes() {
        let maps = maps(2, 2, 4);
        let shuffled: Vec<Tensor> = maps
            .iter()
            .map(|map| {
                let order = libtorch::random::uniform(3, &[map.size()[3]]).argsort(0, false);
                map.index_select(3, &order).flip([2])
            })
            .collect();
        assert!(relative_error(&loss(&config, &shuffled), &loss(&config, &maps)) < 1e-5);
    }
}

#[test]
fn swapping_the_words_changes_only_the_gradients_places() {
    for config in modes() {
        let maps = maps(4, 2, 4);
        let swap = Tensor::from_slice(&[0i64, 2, 1, 3]);
        let swapped: Vec<Tensor> = maps.iter().map(|map| map.index_select(1, &swap)).collect();
        assert!(relative_error(&loss(&config, &swapped), &loss(&config, &maps)) < 1e-6);
    }
}

#[test]
fn samples_add_up_or_are_averaged() {
    for config in modes() {
        let maps = maps(5, 3, 4);
        let sum = loss(&config, &maps);
        let one = |b| loss(&config, &maps.iter().map(|map| map.narrow(0, b, 1)).collect::<Vec<_>>());
        assert!(relative_error(&sum, &(one(0) + one(1) + one(2))) < 1e-6);
        let mean = loss(&Config { batch: Batch::Mean, ..config.clone() }, &maps);
        assert!(relative_error(&(mean * 3.0), &sum) < 1e-6);

        let mut first = regularizer(&config, &[1], &[2]).first_samples(2);
        show(&mut first, &maps);
        assert!(relative_error(&first.finish().unwrap().loss, &(one(0) + one(1))) < 1e-6);
    }
}

#[test]
fn the_modes_agree_on_a_single_layer() {
    let maps = maps(6, 2, 4);
    let [per_layer, pooled] = modes().map(|config| loss(&config, &maps[..1]));
    assert!(relative_error(&pooled, &per_layer) < 1e-6);
}

/// A variance of 1e-10 around 1 / 77 is lost by E[x²] - E[x]² in f32.
#[test]
fn small_variances_survive_pooling() {
    let config = Config { mode: Mode::Pooled, lambda_mean: 0.0, lambda_variance: 1e18, ..Config::default() };
    let flat: Vec<Tensor> = maps(7, 2, 4).iter().map(|map| 1.0 / 77.0 + map.to_kind(Kind::Double) * 1e-5).collect();
    let singles: Vec<Tensor> = flat.iter().map(|map| map.to_kind(Kind::Float)).collect();
    let doubles: Vec<Tensor> = singles.iter().map(|map| map.to_kind(Kind::Double)).collect();
    golden::assert_close("pooled small variances", &loss(&config, &singles), &loss(&config, &doubles), 1e-4);
}

#[test]
fn a_category_of_several_tokens() {
    let maps = maps(8, 2, 6);
    let of = |category: Category, positions: &[i64]| {
        let mut regularizer = regularizer(&Config { category, ..Config::default() }, &[1], positions);
        show(&mut regularizer, &maps);
        regularizer.finish().unwrap().loss
    };
    assert_eq!(of(Category::First, &[2, 3]), of(Category::Mean, &[2]));
    assert_ne!(of(Category::Mean, &[2, 3]), of(Category::Mean, &[2]));
    assert_eq!(regularizer(&Config { category: Category::First, ..Config::default() }, &[1], &[2, 3]).tokens(), [1, 2]);
}

#[test]
fn a_summary_is_readable() {
    let maps = maps(9, 2, 6);
    let mut regularizer = regularizer(&Config::default(), &[1, 2], &[3]);
    show(&mut regularizer, &maps);
    let summary = regularizer.finish().unwrap().summary().unwrap();
    assert_eq!(summary.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["layer 0", "layer 1"]);
    let first = maps[0].to_kind(Kind::Double);
    let expected = [
        (summary[0].placeholder.mean, first.narrow(1, 1, 2).mean(Kind::Double)),
        (summary[0].category.mean, first.narrow(1, 3, 1).mean(Kind::Double)),
        (
            summary[0].placeholder.variance,
            first.narrow(1, 1, 2).flatten(2, 3).var_dim([2i64].as_slice(), true, false).mean(Kind::Double),
        ),
        (
            summary[0].category.variance,
            first.narrow(1, 3, 1).flatten(2, 3).var_dim([2i64].as_slice(), true, false).mean(Kind::Double),
        ),
    ];
    for (actual, expected) in expected {
        assert!((actual / expected.double_value(&[]) - 1.0).abs() < 1e-6);
    }
}

#[test]
fn without_a_weight_a_term_is_not_computed() {
    // One head and one pixel have no variance, which the first stage does not ask for.
    let single = [libtorch::random::uniform(1, &[2, 4, 1, 1]).set_requires_grad(true)];
    let first_stage = Config { lambda_mean: 0.1, lambda_variance: 0.0, ..Config::default() };
    for config in modes() {
        let loss = loss(&Config { mode: config.mode, ..first_stage.clone() }, &single);
        loss.backward();
        assert!(single[0].grad().isfinite().all().double_value(&[]) == 1.0);

        let mut regularizer = regularizer(&config, &[1], &[2]);
        show(&mut regularizer, &single);
        let error = regularizer.finish().unwrap_err().to_string();
        assert!(error.contains("layer 0") && error.contains("no variance"), "{error}");
    }
    let nothing = Config { lambda_mean: 0.0, lambda_variance: 0.0, ..Config::default() };
    assert_eq!(loss(&nothing, &maps(1, 2, 4)).double_value(&[]), 0.0);
}

#[test]
fn misuse_is_explained() {
    let error = |placeholder: &[i64], category: &[i64]| {
        AttentionRegularizer::new(&Config::default(), placeholder, category).unwrap_err().to_string()
    };
    assert!(error(&[], &[2]).contains("position of the placeholder"));
    assert!(error(&[1], &[]).contains("position of the category"));
    assert!(error(&[1, 2], &[2]).contains("position 2 twice"));
    assert!(error(&[-1], &[2]).contains("position -1"));
    let config = Config { lambda_mean: f64::NAN, ..Config::default() };
    let error = AttentionRegularizer::new(&config, &[1], &[2]).unwrap_err().to_string();
    assert_eq!(error, "the regulariser's lambda_mean is NaN, but must be zero or more");

    let mut regularizer = regularizer(&Config::default(), &[1], &[2]);
    assert!(regularizer.finish().unwrap_err().to_string().contains("saw no cross-attention"));
    let maps = maps(1, 1, 4);
    show(&mut regularizer, &maps);
    show(&mut regularizer, &maps);
    assert!(regularizer.finish().unwrap_err().to_string().contains("layer 0 twice"));
    show(&mut regularizer, &maps);
    regularizer.finish().unwrap();
}

#[test]
fn a_config_is_read_with_the_authors_choices_for_absent_keys() {
    let config: Config = serde_json::from_str(r#"{"mode": "pooled", "category": "first"}"#).unwrap();
    assert_eq!(config, Config { mode: Mode::Pooled, category: Category::First, ..Config::default() });
    assert_eq!(serde_json::from_str::<Config>(&serde_json::to_string(&config).unwrap()).unwrap(), config);
    assert!(serde_json::from_str::<Config>(r#"{"mode": "per layer"}"#).is_err());
}

#[test]
fn samples_with_prompts_of_their_own_are_as_if_each_were_alone() {
    // Two placeholder rows, a category of two tokens; the third sample has no part.
    let prompts = [[vec![1i64, 2], vec![3, 4]], [vec![4, 5], vec![0, 6]]];
    for (mode, category) in
        [(Mode::PerLayer, Category::Mean), (Mode::PerLayer, Category::First), (Mode::Pooled, Category::Mean)]
    {
        let config = Config { mode, category, ..Config::default() };
        let maps: Vec<Tensor> = maps(9, 3, 8).into_iter().map(|map| map.set_requires_grad(true)).collect();
        let mut own = AttentionRegularizer::for_prompts(&config, &prompts).unwrap();
        show(&mut own, &maps);
        let found = own.finish().unwrap().loss;
        let alone = (0..).zip(&prompts).map(|(sample, [placeholder, noun])| {
            let mut one = regularizer(&config, placeholder, noun);
            show(&mut one, &maps.iter().map(|map| map.narrow(0, sample, 1)).collect::<Vec<_>>());
            one.finish().unwrap().loss
        });
        let alone: Tensor = alone.sum();
        assert!((&found - &alone).abs().double_value(&[]) < 1e-6 * alone.double_value(&[]));
        let gradients = |loss: &Tensor| Tensor::run_backward(&[loss], &maps, true, false);
        for (a, b) in gradients(&found).iter().zip(&gradients(&alone)) {
            assert!(relative_error(a, b) < 1e-5);
            assert_eq!(a.get(2).abs().max().double_value(&[]), 0.0);
        }
    }
}

#[test]
fn the_same_prompt_for_each_sample_gives_the_bits_of_one_prompt() {
    let maps = maps(10, 2, 5);
    let mut own =
        AttentionRegularizer::for_prompts(&Config::default(), &[[vec![1], vec![2]], [vec![1], vec![2]]]).unwrap();
    show(&mut own, &maps);
    assert!(own.finish().unwrap().loss.equal(&loss(&Config::default(), &maps)));
}

#[test]
fn prompts_of_different_numbers_of_tokens_are_refused() {
    let of = |prompts: &[[Vec<i64>; 2]]| {
        AttentionRegularizer::for_prompts(&Config::default(), prompts).unwrap_err().to_string()
    };
    assert!(of(&[]).contains("at least one prompt"));
    assert!(of(&[[vec![1], vec![2]], [vec![1], vec![2, 3]]]).contains("different numbers"));
    assert!(of(&[[vec![1], vec![1]]]).contains("twice"));
}
