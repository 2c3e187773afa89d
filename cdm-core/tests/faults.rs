//! Every port call of every pipeline, broken in every way; then pairs of faults.

use cdm_testkit::world::{Summary, World, scenarios};

#[test]
fn reference_runs() {
    for scenario in scenarios() {
        let mut world = World::new(1);
        (scenario.before)(&mut world);
        world.gate.start_trace();
        (scenario.act)(&mut world);
        let trace = world.gate.trace();
        println!("=== {} {} calls", scenario.name, trace.len());
        println!("{}", Summary::of(&world));
        let v = world.violations();
        for v in &v {
            println!("VIOLATION {v}");
        }
        println!("parked {:?}", world.parked());
        println!("{:?}", trace.iter().map(|c| c.name).collect::<Vec<_>>());
    }
}
