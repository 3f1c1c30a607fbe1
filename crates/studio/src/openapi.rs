//! `GET /openapi.json`: what every address takes.

use axum::extract::Json;
use serde_json::{Map, Value, json};

/// Every address: method, path, what it is for, and the fields of its form or query, required ones with an asterisk.
const PATHS: &[(&str, &str, &str, &[&str])] = &[
    ("get", "/", "The page of all runs and of the queue", &["token"]),
    ("get", "/events", "What that page shows, as it changes (Server-Sent Events)", &[]),
    ("get", "/api/runs", "All runs: configuration, state, steps", &[]),
    ("get", "/api/jobs", "All jobs: waiting, running, and the last that are over", &[]),
    ("get", "/api/images", "Generated images, newest first, a hundred at a time", &["source", "skip"]),
    ("get", "/openapi.json", "This description", &[]),
    ("post", "/jobs/{id}/pause", "Pause a training, with a checkpoint", &[]),
    ("post", "/jobs/{id}/stop", "Stop a job, a training with a checkpoint, and take it out of the list", &[]),
    ("post", "/jobs/{id}/resume", "Go on with a training that was paused", &[]),
    ("post", "/jobs/{id}/advance", "Put a waiting training before the one that is before it", &[]),
    ("get", "/teach", "The page to upload photos, and to choose what is learned from them", &["photos"]),
    ("post", "/photos", "Upload photos as multipart/form-data", &["set*", "photos*"]),
    ("get", "/photos/{set}/first.jpg", "The first photo, small", &[]),
    ("get", "/photos/{set}/thumbnails/{file}", "A photo, small", &[]),
    ("post", "/plans", "Find out what a run would take; answers with the address of the result", TEACHING),
    ("get", "/plans/{id}", "The page of a check", &[]),
    ("get", "/plans/{id}/events", "What that page shows, as it changes (Server-Sent Events)", &[]),
    ("get", "/plans/{id}/sheet.png", "The first augmented crops", &[]),
    ("post", "/plans/{id}/start", "Start the run that was checked", &[]),
    ("post", "/runs", "Start a run; answers with its address", TEACHING),
    ("get", "/runs/{name}", "The page of a run", &[]),
    ("get", "/runs/{name}/events", "What that page shows, as it changes (Server-Sent Events)", &[]),
    ("post", "/runs/{name}/pause", "Pause its training, with a checkpoint", &[]),
    ("post", "/runs/{name}/stop", "Stop its training, with a checkpoint, and take it out of the queue", &[]),
    ("post", "/runs/{name}/resume", "Put a run that is not finished into the queue", &[]),
    ("get", "/runs/{name}/sheet.png", "Its contact sheet", &[]),
    ("get", "/runs/{name}/samples/{file}", "Its validation images", &[]),
    ("get", "/runs/{name}/report", "Its report", &[]),
    ("post", "/runs/{name}/scores", "Score it with CLIP; the scores are in the report", &[]),
    ("get", "/runs/{name}/attention", "The page of its attention maps", &[]),
    ("post", "/runs/{name}/attention", "Make attention maps", &["prompt*", "seed", "steps", "phases"]),
    ("get", "/runs/{name}/attention/events", "What that page shows, as it changes (Server-Sent Events)", &[]),
    ("get", "/runs/{name}/attention/{file}", "One of its images", &[]),
    ("get", "/runs/{name}/exports/{file}", "Download an exported file, or a folder as a tar archive", &[]),
    (
        "post",
        "/runs/{name}/exports/{file}",
        "Export it: diffusers, single-file, lora or embedding in place of the file",
        &[],
    ),
    ("get", "/generate", "The page to generate images", &[]),
    (
        "post",
        "/generate",
        "Generate images",
        &[
            "source*",
            "prompt*",
            "negative_prompt",
            "seed",
            "images",
            "batch_size",
            "steps",
            "guidance_scale",
            "scheduler",
            "width",
            "height",
            "lora",
            "lora_scale",
            "base",
            "previews",
        ],
    ),
    ("get", "/generate/events", "What that page shows, as it changes (Server-Sent Events)", &[]),
    ("get", "/gallery", "The page of all images", &["source", "page"]),
    ("get", "/beside", "Images side by side", &["image"]),
    ("get", "/images/{source}/{file}", "An image", &[]),
    ("get", "/images/{source}/{file}/about", "The page of an image with its parameters", &[]),
    ("get", "/delete", "The page that asks whether something is to be deleted", &["target*"]),
    (
        "post",
        "/delete",
        "Delete run:NAME, photos:NAME, image:SOURCE/FILE or export:RUN/FILE, unless it is in use",
        &["target*"],
    ),
    ("get", "/compare", "The page to choose runs to compare", &[]),
    ("get", "/compare/runs", "Runs side by side", &["run*"]),
    ("get", "/compare/study", "A blind study of runs", &["run*"]),
    ("post", "/sdapi/v1/txt2img", "Generate images, as A1111's API", &[]),
    ("get", "/sdapi/v1/sd-models", "Runs and base models, as A1111's API", &[]),
    ("get", "/sdapi/v1/samplers", "Schedulers, as A1111's API", &[]),
    ("get", "/sdapi/v1/progress", "How far the running request is, as A1111's API", &[]),
    ("post", "/sdapi/v1/interrupt", "End the running request, as A1111's API", &[]),
    ("post", "/sdapi/v1/png-info", "The parameters in a PNG, as A1111's API", &[]),
    ("get", "/sdapi/v1/options", "The chosen checkpoint, as A1111's API", &[]),
    ("post", "/sdapi/v1/options", "Choose a checkpoint, as A1111's API", &[]),
    ("get", "/favicon.ico", "No icon", &[]),
    ("get", "/assets/style.css", "The style sheet", &[]),
    ("get", "/assets/report.js", "The script of plots and images", &[]),
    ("get", "/assets/studio.js", "The script of forms and changes", &[]),
];

const TEACHING: &[&str] = &[
    "photos*",
    "category*",
    "model*",
    "name",
    "method",
    "preset",
    "steps",
    "batch_size",
    "resolution",
    "seed",
    "dtype",
    "gradient_checkpointing",
    "validate_every",
    "attention",
    "captions",
    "masks",
    "set",
];

pub(crate) async fn page() -> Json<Value> {
    Json(description())
}

fn description() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, fields) in PATHS {
        let in_path = path.split('{').skip(1).filter_map(|part| part.split('}').next());
        let text = json!({ "type": "string" });
        let mut parameters: Vec<Value> =
            in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text })).collect();
        let (names, required): (Vec<&str>, Vec<&str>) = (
            fields.iter().map(|field| field.trim_end_matches('*')).collect(),
            fields.iter().filter_map(|field| field.strip_suffix('*')).collect(),
        );
        let mut operation = json!({ "summary": summary, "responses": {
            "200": { "description": "As the summary says" }, "303": { "description": "Done; Location shows it" },
            "4XX": { "description": "What was wrong, in a sentence" },
        } });
        if *method == "get" {
            parameters.extend(names.iter().map(
                |name| json!({ "name": name, "in": "query", "required": required.contains(name), "schema": text }),
            ));
        } else if !names.is_empty() {
            let kind = if *path == "/photos" { "multipart/form-data" } else { "application/x-www-form-urlencoded" };
            let file = json!({ "type": "array", "items": { "type": "string", "format": "binary" } });
            let property = |name: &&str| {
                ((*name).to_owned(), if *path == "/photos" && *name == "photos" { file.clone() } else { text.clone() })
            };
            let properties: Map<String, Value> = names.iter().map(property).collect();
            operation["requestBody"] = json!({ "required": true, "content": { kind: { "schema": {
                "type": "object", "properties": properties, "required": required,
            } } } });
        } else if path.starts_with("/sdapi/") {
            operation["requestBody"] = json!({ "content": { "application/json": { "schema": { "type": "object" } } } });
        }
        operation["parameters"] = parameters.into();
        paths.entry(*path).or_insert_with(|| json!({}))[*method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "AttnDreamBooth studio", "version": env!("CARGO_PKG_VERSION") },
        "security": [{ "password": [] }, { "bearer": [] }],
        "components": { "securitySchemes": {
            "password": { "type": "http", "scheme": "basic", "description": "Any user; the token as the password" },
            "bearer": { "type": "http", "scheme": "bearer" },
        } },
        "paths": paths,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// By the text of the files that have the routes.
    #[test]
    fn every_address_is_described_and_no_other() {
        let mut routes = BTreeSet::new();
        for source in [include_str!("routes.rs"), include_str!("sdapi.rs")] {
            for line in source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
                let (path, handlers) = line.split_once('"').unwrap();
                for method in ["get", "post"] {
                    if handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}(")) {
                        routes.insert((method, path));
                    }
                }
            }
        }
        assert!(routes.len() > 40);
        let described: BTreeSet<_> = PATHS.iter().map(|(method, path, ..)| (*method, *path)).collect();
        assert_eq!(routes, described);
        assert_eq!(described.len(), PATHS.len(), "none twice");
    }

    #[test]
    fn a_description_has_what_openapi_asks_for() {
        let description = description();
        assert_eq!(description["openapi"], "3.1.0");
        let form = &description["paths"]["/runs"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]
            ["schema"];
        assert_eq!(form["required"], json!(["photos", "category", "model"]));
        let parameters = description["paths"]["/images/{source}/{file}"]["get"]["parameters"].as_array().unwrap();
        assert_eq!(parameters.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["source", "file"]);
    }
}
