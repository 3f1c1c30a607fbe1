//! The parts of a table that are computed each for itself.

use std::path::{Path, PathBuf};

use crate::{BASE, REAL, TablePlan};

/// What a cell tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Photos of the subject in the place of generated images: what a perfect method would score.
    Real,
    /// The base model with the class noun: what obeys and does not know the subject.
    Base,
    /// A method, by its place in the plan.
    Method(usize),
}

/// One system and one subject; of a method, from one training seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell<'a> {
    /// Its number, from 0.
    pub number: usize,
    /// The plan.
    pub plan: &'a TablePlan,
    /// What it tries.
    pub system: System,
    /// The subject's place in the plan.
    pub subject: usize,
    /// The training seed.
    pub seed: u64,
}

impl Cell<'_> {
    /// Its row in the table.
    pub fn row(&self) -> &str {
        match self.system {
            System::Real => REAL,
            System::Base => BASE,
            System::Method(method) => &self.plan.methods[method].name,
        }
    }

    /// The subject's name.
    pub fn subject(&self) -> &str {
        &self.plan.subjects[self.subject].name
    }

    /// Its folder, in that of the table: `cells/penguin/OFT/seed-0`. The number is not in it, so that a plan can grow and keep what is
    /// done.
    pub fn folder(&self, table: &Path) -> PathBuf {
        let folder = table.join("cells").join(self.subject()).join(self.row());
        match self.system {
            System::Real => folder,
            System::Base | System::Method(_) => folder.join(format!("seed-{}", self.seed)),
        }
    }

    /// What it is called: `penguin, OFT, seed 0`.
    pub fn name(&self) -> String {
        match self.system {
            System::Real => format!("{}, {}", self.subject(), self.row()),
            System::Base | System::Method(_) => format!("{}, {}, seed {}", self.subject(), self.row(), self.seed),
        }
    }
}

/// All cells. Those of one seed come before those of the next, and a subject's before those of the next subject, so that a table which
/// is not finished compares all methods on some subjects.
pub fn cells(plan: &TablePlan) -> Vec<Cell<'_>> {
    let mut all = Vec::new();
    for (turn, &seed) in plan.seeds.iter().enumerate() {
        for subject in 0..plan.subjects.len() {
            // A photo has no seed.
            let real = (turn == 0).then_some(System::Real);
            let systems = real.into_iter().chain([System::Base]).chain((0..plan.methods.len()).map(System::Method));
            all.extend(systems.map(|system| Cell { number: 0, plan, system, subject, seed }));
        }
    }
    all.iter_mut().enumerate().for_each(|(number, cell)| cell.number = number);
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan() -> TablePlan {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        let text = r#"
            name = "two"
            model = "model"
            images = 2
            reference = "ours"
            subjects = [{ name = "rex", photos = "rex", category = "dog" }, { name = "tom", photos = "tom", category = "cat" }]
            methods = [{ name = "ours" }, { name = "OFT", method = "oft" }]
        "#;
        std::fs::write(&path, text).unwrap();
        TablePlan::read(&path).unwrap()
    }

    #[test]
    fn cells_are_numbered_by_seed_subject_and_system() {
        let mut plan = plan();
        plan.seeds = vec![0, 5];
        let all = cells(&plan);
        // Real pictures have no seed.
        assert_eq!(all.len(), 2 + 2 * 2 * 3);
        assert!(all.iter().enumerate().all(|(number, cell)| cell.number == number));
        let names: Vec<String> = all.iter().map(Cell::name).collect();
        assert_eq!(names[0], "rex, real pictures");
        assert_eq!(names[1], "rex, base model, seed 0");
        assert_eq!(names[7], "tom, OFT, seed 0");
        assert_eq!(names[8], "rex, base model, seed 5");
        assert_eq!(names[13], "tom, OFT, seed 5");
        assert_eq!(all[0].folder("t".as_ref()), Path::new("t/cells/rex/real pictures"));
        assert_eq!(all[13].folder("t".as_ref()), Path::new("t/cells/tom/OFT/seed-5"));
    }
}
