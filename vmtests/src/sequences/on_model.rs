//! Runs trials on the model.

use std::path::Path;
use std::time::Duration;

use sim::{Model, Version};

use super::in_model::{InModel, PINS, Program};
use super::step::Step;
use super::trial::{ByHand, Checked, Property, Tally, Trial, Violation};

const TOP: &str = "/sys/fs/cgroup/gate";

/// Creates a trial of a program on a fresh model.
///
/// # Errors
/// Fails if the trial cannot be set up, which is a bug of the harness.
pub fn trial<P: Program>(program: P, version: Version) -> Checked<Trial<Model, InModel<P>>> {
    let kernel = Model::boot(version, Path::new(TOP), Path::new(PINS));
    let system = InModel::new(program, &kernel);
    Trial::new(kernel, system, Path::new(TOP), version, Duration::ZERO)
        .map_err(|error| Violation::new(Property::GateIsRight, error.to_string()))
}

/// Takes these steps and then takes everything down.
///
/// # Errors
/// Returns the violated property.
pub fn run<P: Program>(program: P, version: Version, steps: &[Step]) -> Checked<Tally> {
    let mut trial = trial(program, version)?;
    for step in steps {
        trial.step(step)?;
    }
    trial.finish(&mut ByHand)
}
