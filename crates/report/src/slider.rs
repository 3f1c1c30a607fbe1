//! A row of views of which a slider shows one.

use crate::element::Element;

/// Views in their order, each with its name; the last is shown first. A view alone needs no slider. Without scripts, all
/// of them stand one below the other.
pub(crate) fn slider(id: &str, label: &str, views: Vec<(String, Element)>) -> Element {
    let last = views.len().saturating_sub(1);
    let names: Vec<String> = views.iter().map(|(name, _)| name.clone()).collect();
    let frames = views.into_iter().map(|(name, view)| {
        let heading = Element::of("h4", &name);
        Element::new("div").class("frame").attr("data-name", name).child(heading).child(view)
    });
    let frames = Element::new("div").class("frames").children(frames);
    if last == 0 {
        return frames;
    }
    let input = Element::new("input")
        .attr("type", "range")
        .attr("id", id)
        .attr("min", 0)
        .attr("max", last)
        .attr("step", 1)
        .attr("value", last);
    let ends = Element::new("div").class("ends").attr("aria-hidden", "true");
    let ends = ends.child(Element::of("span", &names[0])).child(Element::of("span", &names[last]));
    let all = Element::new("label")
        .class("all")
        .child(Element::new("input").attr("type", "checkbox"))
        .child(Element::of("span", "all at once"));
    let controls = Element::new("div")
        .class("controls")
        .child(Element::of("label", format!("{label}: ")).attr("for", id))
        .child(Element::new("output").attr("for", id))
        .child(all)
        .child(input)
        .child(ends);
    Element::new("div").class("slider").child(controls).child(frames)
}
