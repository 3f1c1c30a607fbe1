//! No file of a crate uses another that uses it, directly or by way of others.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// A file of a crate with the path of its module, such as `["pages", "scores"]`.
type Files = BTreeMap<PathBuf, Vec<String>>;

/// The library or program whose root is `root`, file by file, with what each uses of the others.
struct Graph {
    files: Files,
    /// Which file a module is written in.
    modules: BTreeMap<Vec<String>, PathBuf>,
    syntax: BTreeMap<PathBuf, syn::File>,
}

impl Graph {
    fn read(root: &Path) -> Self {
        let mut graph = Self { files: Files::new(), modules: BTreeMap::new(), syntax: BTreeMap::new() };
        graph.add(root, &[]);
        graph
    }

    fn add(&mut self, path: &Path, module: &[String]) {
        let syntax = syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap();
        self.files.insert(path.to_owned(), module.to_vec());
        self.add_items(path, module, &syntax.items);
        self.syntax.insert(path.to_owned(), syntax);
    }

    fn add_items(&mut self, path: &Path, module: &[String], items: &[syn::Item]) {
        self.modules.insert(module.to_vec(), path.to_owned());
        for item in items {
            let syn::Item::Mod(item) = item else { continue };
            if is_for_tests(&item.attrs) {
                continue;
            }
            let name = item.ident.to_string();
            let inner = [module, std::slice::from_ref(&name)].concat();
            if let Some((_, items)) = &item.content {
                self.add_items(path, &inner, items);
                continue;
            }
            let is_root = module.is_empty() || path.file_name().unwrap() == "mod.rs";
            let folder = if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
            let places = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
            let file =
                places.iter().find(|place| place.exists()).unwrap_or_else(|| panic!("{name} in {}", path.display()));
            self.add(file, &inner);
        }
    }

    /// The file that has what the path `segments` of the crate names, through re-exports.
    fn owner(&self, segments: &[String], depth: usize) -> Option<&Path> {
        let known = (0..=segments.len()).rev().find(|&length| self.modules.contains_key(&segments[..length]))?;
        let (module, rest) = segments.split_at(known);
        let file = &self.modules[module];
        if let Some(name) = rest.first().filter(|_| depth < 8) {
            for (exported, target) in self.exports(module) {
                if exported == *name || exported == "*" {
                    let mut target = target.clone();
                    if exported == "*" {
                        target.push(name.clone());
                        // A glob may not have it.
                        if !self.defines(&target, name) {
                            continue;
                        }
                    }
                    target.extend(rest[1..].iter().cloned());
                    return self.owner(&target, depth + 1);
                }
            }
        }
        Some(file)
    }

    /// Whether the module before the last segment of `path` has an item `name`.
    fn defines(&self, path: &[String], name: &str) -> bool {
        let Some(file) = self.modules.get(&path[..path.len() - 1]) else { return false };
        self.syntax[file].items.iter().any(|item| item_name(item).is_some_and(|item| item == name))
    }

    /// What a module re-exports of its own crate: each name with the path that it stands for.
    fn exports(&self, module: &[String]) -> Vec<(String, Vec<String>)> {
        let file = &self.modules[module];
        if self.files[file] != module {
            return Vec::new();
        }
        let mut exports = Vec::new();
        for item in &self.syntax[file].items {
            let syn::Item::Use(item) = item else { continue };
            if matches!(item.vis, syn::Visibility::Inherited) {
                continue;
            }
            for (name, path) in leaves(&item.tree) {
                exports.extend(self.absolute(module, &path).map(|path| (name, path)));
            }
        }
        exports
    }

    /// The path from the crate's root, if it begins in this crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let mut base = module.to_vec();
        let mut rest = path;
        let mut relative = true;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => base.clear(),
                "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            (rest, relative) = (others, false);
        }
        let whole = [&base[..], rest].concat();
        // `image::open` is another crate's unless there is a module `image` here.
        let is_child = rest
            .first()
            .is_some_and(|first| self.modules.contains_key(&[&base[..], std::slice::from_ref(first)].concat()));
        (!relative || is_child).then_some(whole)
    }

    /// The files that each file uses, with one path as an example.
    fn edges(&self) -> BTreeMap<&Path, BTreeMap<&Path, String>> {
        let mut edges = BTreeMap::new();
        for (path, syntax) in &self.syntax {
            let mut seen = Paths::default();
            seen.visit_file(syntax);
            let module = &self.files[path];
            let mut used = BTreeMap::new();
            for name in &seen.paths {
                let Some(absolute) = self.absolute(module, name) else { continue };
                let owner = self.owner(&absolute, 0).unwrap();
                if owner != path {
                    used.entry(owner).or_insert_with(|| name.join("::"));
                }
            }
            edges.insert(path.as_path(), used);
        }
        edges
    }
}

/// All paths that a file names outside its tests, those of macros' arguments included.
#[derive(Default)]
struct Paths {
    paths: BTreeSet<Vec<String>>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // What is re-exported is not used here.
        if matches!(item.vis, syn::Visibility::Inherited) {
            self.paths.extend(leaves(&item.tree).into_iter().map(|(_, path)| path));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let words: Vec<String> = call.tokens.to_string().split_whitespace().map(str::to_owned).collect();
        for start in 0..words.len() {
            if ["crate", "self", "super"].contains(&&*words[start])
                && words.get(start + 1).is_some_and(|word| word == "::")
            {
                let links = words[start + 1..].iter().step_by(2).take_while(|word| *word == "::").count();
                let name =
                    |word: &String| word.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
                self.paths.insert(words[start..].iter().step_by(2).take(links + 1).map(name).collect());
            }
        }
        syn::visit::visit_macro(self, call);
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

/// Each name that a `use` brings with its path; `*` for all.
fn leaves(tree: &syn::UseTree) -> Vec<(String, Vec<String>)> {
    match tree {
        syn::UseTree::Path(path) => {
            let first = path.ident.to_string();
            let below = leaves(&path.tree).into_iter();
            below.map(|(name, rest)| (name, [vec![first.clone()], rest].concat())).collect()
        }
        syn::UseTree::Name(name) if name.ident == "self" => vec![("self".to_owned(), Vec::new())],
        syn::UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        syn::UseTree::Rename(name) => vec![(name.rename.to_string(), vec![name.ident.to_string()])],
        syn::UseTree::Glob(_) => vec![("*".to_owned(), Vec::new())],
        syn::UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

fn item_name(item: &syn::Item) -> Option<&syn::Ident> {
    match item {
        syn::Item::Const(item) => Some(&item.ident),
        syn::Item::Enum(item) => Some(&item.ident),
        syn::Item::Fn(item) => Some(&item.sig.ident),
        syn::Item::Static(item) => Some(&item.ident),
        syn::Item::Struct(item) => Some(&item.ident),
        syn::Item::Trait(item) => Some(&item.ident),
        syn::Item::Type(item) => Some(&item.ident),
        _ => None,
    }
}

/// Circles, each as a line of files; those that share a file are one.
fn circles(edges: &BTreeMap<&Path, BTreeMap<&Path, String>>) -> Vec<String> {
    fn reach<'a>(edges: &BTreeMap<&'a Path, BTreeMap<&'a Path, String>>, from: &'a Path) -> BTreeSet<&'a Path> {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(next) = left.pop() {
            left.extend(edges[next].keys().filter(|used| seen.insert(**used)).copied());
        }
        seen
    }
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = edges.keys().map(|file| (*file, reach(edges, file))).collect();
    let mut found = BTreeSet::new();
    for (file, all) in reached.iter().filter(|(file, all)| all.contains(*file)) {
        let circle: BTreeSet<&Path> = all.iter().filter(|other| reached[*other].contains(file)).copied().collect();
        found.insert(circle);
    }
    let describe = |circle: BTreeSet<&Path>| {
        let uses = circle.iter().flat_map(|file| {
            let inside = edges[file].iter().filter(|(used, _)| circle.contains(*used));
            inside.map(move |(used, name)| format!("{} uses {} ({name})", short(file), short(used)))
        });
        uses.collect::<Vec<_>>().join("; ")
    };
    found.into_iter().map(describe).collect()
}

fn short(path: &Path) -> String {
    let text = path.display().to_string();
    text.rsplit_once("/src/").map_or(text.clone(), |(_, short)| short.to_owned())
}

fn roots() -> Vec<(String, PathBuf)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = fs::read_dir(workspace.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let mut roots = Vec::new();
    for folder in crates.chain([workspace.join("xtask")]) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let files = ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file));
        roots.extend(files.into_iter().filter(|file| file.exists()).map(|file| (name.clone(), file)));
    }
    roots.sort();
    roots
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let mut problems = Vec::new();
    for (name, root) in roots() {
        let graph = Graph::read(&root);
        for circle in circles(&graph.edges()) {
            problems.push(format!("{name}: {circle}"));
        }
    }
    assert!(problems.is_empty(), "files in circles:\n{}", problems.join("\n"));
}

#[test]
fn circles_are_seen_through_re_exports_and_macros() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("lib.rs", "mod a; mod b; mod c; pub use b::Thing;");
    write("a.rs", "use crate::Thing; pub fn a(_: Thing) {}");
    write("b.rs", "pub struct Thing; pub fn b() { println!(\"{:?}\", crate::c::c()); }");
    write("c.rs", "#[cfg(test)] mod tests { use crate::a::a; } pub fn c() {}");
    let found = |root: &Path| circles(&Graph::read(root).edges());
    let root = folder.path().join("lib.rs");
    assert_eq!(found(&root), [""; 0]);
    write("c.rs", "pub fn c() { super::a::a(crate::Thing) }");
    assert_eq!(found(&root).len(), 1);
    assert!(
        found(&root)[0].contains("b.rs (crate::Thing)") && found(&root)[0].contains("(crate::c::c)"),
        "{:?}",
        found(&root)
    );
}
