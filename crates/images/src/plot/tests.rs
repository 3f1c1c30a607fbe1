use super::*;

const RED: [u8; 3] = [200, 0, 0];
const GREEN: [u8; 3] = [0, 150, 0];
/// The colours of titles, of other texts and of marks: `currentColor` with their opacities.
const TITLE: [u8; 3] = [31, 35, 40];
const TEXT: [u8; 3] = [87, 90, 94];
const MARK: [u8; 3] = [177, 178, 180];

fn steps(values: &[f64]) -> Vec<(f64, f64)> {
    values.iter().enumerate().map(|(i, value)| (i as f64, *value)).collect()
}

/// Whether a pixel has a colour, but for the smooth edges of lines.
fn is(pixel: &image::Rgb<u8>, color: [u8; 3]) -> bool {
    pixel.0.iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 24)
}

/// Where pixels of a colour are: the least and the greatest x and y.
fn extent(image: &RgbImage, color: [u8; 3]) -> Option<[u32; 4]> {
    let places = image.enumerate_pixels().filter(|(_, _, pixel)| is(pixel, color)).map(|(x, y, _)| (x, y));
    places.fold(None, |extent, (x, y)| {
        let [left, right, top, bottom] = extent.unwrap_or([x, x, y, y]);
        Some([left.min(x), right.max(x), top.min(y), bottom.max(y)])
    })
}

fn count(image: &RgbImage, color: [u8; 3]) -> usize {
    image.pixels().filter(|pixel| is(pixel, color)).count()
}

#[test]
fn a_line_spans_the_plot_from_corner_to_corner() {
    let plot = Plot::new("", "").line("", RED, steps(&[0.0, 1.0]));
    let image = plot.draw(600, 400);
    let frame = Frame::new(&plot, 600, 400);
    let [left, right, top, bottom] = extent(&image, RED).unwrap().map(i64::from);
    assert!((left - i64::from(frame.left)).abs() <= 2 && (right - i64::from(frame.right)).abs() <= 2);
    assert!((bottom - i64::from(frame.bottom)).abs() <= 2, "zero is the floor");
    let air = f64::from(frame.bottom - frame.top) * (1.0 - 1.0 / 1.06);
    assert!((top as f64 - f64::from(frame.top) - air).abs() <= 2.0);
}

#[test]
fn a_logarithm_makes_powers_a_straight_line() {
    let powers = steps(&[1.0, 10.0, 100.0, 1000.0, 1e4]);
    let plot = Plot::new("", "").scale(Scale::Log).line("", RED, powers.clone());
    let frame = Frame::new(&plot, 600, 400);
    let places: Vec<(f64, f64)> = frame.places(&powers).map(Option::unwrap).collect();
    let rise = |i: usize| places[i].1 - places[i + 1].1;
    assert!(rise(0) > 10.0 && (1..4).all(|i| (rise(i) - rise(0)).abs() < 1e-9));
}

#[test]
fn gaps_are_left_open() {
    let closed = Plot::new("", "").line("", RED, steps(&[1.0, 1.0, 1.0, 1.0, 1.0])).draw(600, 400);
    for gap in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
        let open = Plot::new("", "").line("", RED, steps(&[1.0, 1.0, gap, 1.0, 1.0])).draw(600, 400);
        let ratio = count(&open, RED) as f64 / count(&closed, RED) as f64;
        assert!((0.4..0.6).contains(&ratio), "{gap}: {ratio}");
    }
    let log = Plot::new("", "").scale(Scale::Log);
    let open = log.line("", RED, steps(&[1.0, 1.0, 0.0, 1.0, -1.0])).draw(600, 400);
    assert!(extent(&open, RED).is_some());
}

#[test]
fn a_single_point_is_a_dot_in_the_middle() {
    let image = Plot::new("", "").line("", RED, [(7.0, 3.0)]).draw(600, 400);
    let [left, right, top, bottom] = extent(&image, RED).unwrap();
    assert!((2..8).contains(&(right - left)) && (2..8).contains(&(bottom - top)));
    assert!((200..450).contains(&left) && (100..300).contains(&top));
}

#[test]
fn smoothing_lies_over_the_faint_line() {
    let zigzag: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
    let plot = Plot::new("", "").line("", RED, steps(&zigzag));
    let raw = extent(&plot.draw(600, 400), RED).unwrap();
    let smooth = extent(&plot.clone().smooth(40).draw(600, 400), RED).unwrap();
    assert!(raw[3] - raw[2] > 200, "{raw:?}");
    assert!(smooth[3] - smooth[2] < 20, "{smooth:?}");
}

#[test]
fn means_are_taken_around_each_point_and_over_what_is_there() {
    let points = steps(&[1.0, 2.0, 6.0, f64::NAN, 8.0]);
    let means = |window| smoothed(&points, window, Scale::Linear).iter().map(|(_, y)| *y).collect::<Vec<_>>();
    assert_eq!(means(1)[..3], [1.0, 2.0, 6.0]);
    assert_eq!(means(3)[..3], [1.5, 3.0, 4.0]);
    assert_eq!(means(100)[0], 17.0 / 4.0);
    assert!(means(3)[3].is_nan());
    assert_eq!(means(3)[4], 8.0);
}

#[test]
fn the_legend_has_every_named_line_beside_the_title_or_below() {
    let plot = |name: &str| {
        Plot::new("the title", "").line(name, RED, steps(&[1.0])).line(name, GREEN, steps(&[1.0])).line("", RED, [])
    };
    let short = plot("loss");
    let (entries, top) = legend(&short, 600);
    assert_eq!(entries.len(), 2);
    assert!(entries[0].y == entries[1].y && entries[0].x > 300);
    let long = plot("a name of more than half of the width of the plot");
    let (entries, lower) = legend(&long, 600);
    assert!(entries[0].y < entries[1].y && entries.iter().all(|entry| entry.x == MARGIN));
    assert_eq!(lower, top + 2 * ROW + 4);
}

#[test]
fn captions_do_not_overlap() {
    let plot = Plot::new("", "")
        .line("", RED, steps(&[1.0; 100]))
        .mark(0.0, "the first stage")
        .mark(2.0, "the second stage")
        .mark(50.0, "the third stage")
        .mark(200.0, "beyond");
    let frame = Frame::new(&plot, 600, 400);
    let rows: Vec<i32> = frame.captions.iter().map(|caption| caption.y).collect();
    assert_eq!(rows, [rows[0], rows[0] + ROW, rows[0]]);
    assert_eq!(frame.top, rows[1] + ROW);
    assert!(count(&plot.draw(600, 400), MARK) > 100);
}

#[test]
fn an_empty_plot_says_so() {
    let empty = Plot::new("loss", "step");
    let ink = |plot: &Plot| count(&plot.draw(600, 400), TEXT);
    let nothing = ink(&empty);
    let without_points = ink(&empty.clone().line("", RED, []));
    let nowhere = ink(&empty.clone().line("", RED, [(f64::NAN, 1.0), (1.0, f64::NAN)]));
    assert_eq!((without_points, nowhere), (nothing, nothing));
    assert_eq!(extent(&empty.clone().line("", RED, [(f64::NAN, 1.0)]).draw(600, 400), RED), None);
}

#[test]
fn any_size_and_any_values_will_do() {
    let wild = [0.0, -1e300, 1e300, 1e-300, f64::MAX, f64::MIN, 5.0, f64::NAN, f64::INFINITY];
    for scale in [Scale::Linear, Scale::Log] {
        let plot =
            Plot::new("a title", "step").scale(scale).line("wild", RED, steps(&wild)).mark(1.0, "here").smooth(3);
        for (width, height) in [(0, 0), (1, 1), (10, 300), (300, 10), (80, 60), (640, 480)] {
            assert_eq!(plot.draw(width, height).dimensions(), (width.max(1), height.max(1)));
        }
        for same in [0.0, 1.0, -3.0, 1e-30, 1e30] {
            let constant = Plot::new("", "").scale(scale).line("", RED, steps(&[same; 3])).draw(300, 200);
            let shown = scale == Scale::Linear || same > 0.0;
            assert_eq!(extent(&constant, RED).is_some(), shown, "{same} {scale:?}");
        }
    }
}

#[test]
fn the_title_and_texts_are_written() {
    let plot = Plot::new("loss", "step").line("", RED, steps(&[1.0, 2.0]));
    let image = plot.draw(600, 400);
    let [left, right, top, bottom] = extent(&image, TITLE).unwrap();
    assert!(left >= 20 && right < 20 + 4 * 9 && top >= 14 && bottom < 14 + 15);
    let [left, .., bottom] = extent(&image, TEXT).unwrap();
    assert!(left < 40 && bottom > 370);
}

fn first(values: &[f64]) -> Plot {
    let points = values.iter().enumerate().map(|(i, value)| (i as f64, *value));
    Plot::new("loss", "step").line("first", [0, 114, 178], points).mark(1.0, "here")
}

/// What stands between `from` and the next quotation mark.
fn after<'a>(svg: &'a str, from: &str) -> &'a str {
    svg.split_once(from).unwrap().1.split('"').next().unwrap()
}

#[test]
fn the_line_is_where_the_layout_has_it() {
    let plot = first(&[0.0, 1.0, 0.5]);
    let frame = Frame::new(&plot, 600, 400);
    let svg = plot.svg(600, 400);
    let expected: Vec<String> =
        frame.places(&plot.series[0].points).map(Option::unwrap).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    assert_eq!(after(&svg, r#"class="line" stroke-width="2" d=""#), format!("M{}", expected.join("L")));
    assert!(!svg.contains(r#"class="raw""#) && plot.smooth(3).svg(600, 400).contains(r#"class="raw""#));
    assert!(svg.contains(">here</text>") && svg.contains(">step</text>") && svg.contains(">first</text>"));
}

#[test]
fn every_value_can_be_read_back() {
    let svg = first(&[0.25, f64::NAN, 1e-7]).smooth(2).svg(600, 400);
    let points: Vec<Vec<f64>> = after(&svg, r#"data-points=""#)
        .split(';')
        .map(|point| point.split(' ').map(|number| number.parse().unwrap()).collect())
        .collect();
    assert_eq!(points.len(), 2, "a gap has no value");
    assert_eq!((points[0][1..].to_vec(), points[1][1..].to_vec()), (vec![0.0, 0.25, 0.25], vec![2.0, 1e-7, 1e-7]));
}

#[test]
fn gaps_are_left_open_and_a_single_point_is_a_dot() {
    let line = |values: &[f64]| after(&first(values).svg(600, 400), r#"class="line" stroke-width="2" d=""#).to_owned();
    let open = line(&[1.0, 2.0, f64::NAN, 1.0, 1.0]);
    assert_eq!((open.matches('M').count(), open.matches('L').count()), (2, 2));
    assert!(line(&[5.0]).ends_with("h0"));
    assert_eq!(first(&[5.0, f64::NAN, 1.0, 2.0]).svg(600, 400).matches(r#"stroke-width="5""#).count(), 1);
    assert_eq!(line(&[f64::INFINITY]), "");
}

#[test]
fn texts_cannot_leave_their_place() {
    let hostile = r#""><script>alert('1 & 2')</script>"#;
    let svg = Plot::new(hostile, hostile).line(hostile, [0; 3], [(0.0, 1.0)]).mark(0.0, hostile).svg(600, 400);
    assert!(!svg.contains("<script") && !svg.contains(r#"""#.repeat(2).as_str()), "{svg}");
    // Title twice, label, name twice, mark.
    assert_eq!(svg.matches("&quot;&gt;&lt;script&gt;alert(&#39;1 &amp; 2&#39;)&lt;/script&gt;").count(), 6);
}

#[test]
fn any_size_will_do() {
    for (width, height) in [(0, 0), (1, 1), (10, 300), (300, 10)] {
        assert!(first(&[1.0, -1e300]).svg(width, height).ends_with("</svg>"));
    }
}
