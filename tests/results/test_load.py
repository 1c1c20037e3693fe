"""Every version, and every kind of file that is no result, becomes a record; none stops the reader."""

import json

import pytest
from result_folders import ENVIRONMENT, NODE, result, save

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.find import expand, find_results
from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.results.record import ResultRecord


def record_of(folder, content=None, **of_result) -> ResultRecord:
    return load_result(save(folder, content, **of_result) / "results.json").record


def test_every_figure_of_a_result_comes_from_its_own_key(tmp_path):
    # Two windows of four images: 8.0 and 8.4 s, 5000 and 5400 J.
    found = record_of(tmp_path, seconds=(8.0, 8.4), joules=(5000.0, 5400.0), images=True)
    assert (found.state, found.reason, found.schema_version) == ("complete", None, 1)
    assert (found.images_count, found.iterations_count) == (8, 2)
    assert found.generation_time_s == pytest.approx(16.4)
    assert found.throughput_images_per_s == pytest.approx(8 / 16.4)
    assert found.time_per_image_mean_s == pytest.approx(2.05)
    assert found.time_per_image_stdev_s == pytest.approx(0.0707107, rel=1e-5)  # of 2.0 and 2.1
    assert (found.time_per_image_min_s, found.time_per_image_max_s) == (2.0, 2.1)
    # t(0.975, 1) = 12.7062; of the mean: s / sqrt(2) = 0.05
    assert found.time_per_image_ci95_half_s == pytest.approx(12.7062 * 0.05, rel=1e-5)
    assert found.time_interval_reason is None
    assert found.energy_total_j == pytest.approx(10400)
    assert found.energy_per_image_mean_j == pytest.approx(1300)
    assert found.energy_per_image_stdev_j == pytest.approx(70.7107, rel=1e-5)  # of 1250 and 1350
    assert found.energy_per_image_ci95_half_j == pytest.approx(12.7062 * 50, rel=1e-5)
    assert (found.energy_source, found.energy_reason) == ("nvml_counter", None)
    assert found.mean_power_w == pytest.approx(10400 / 16.4)
    assert found.cpu_package_energy_j == pytest.approx(60)
    assert (found.peak_memory_gb, found.memory_reason) == (34.0, None)
    assert found.first_call_s == 16.0
    means = (found.text_encode_mean_s, found.denoise_mean_s, found.vae_decode_mean_s, found.other_mean_s)
    assert means == pytest.approx((0.82, 6.56, 0.656, 0.164))
    assert (found.images_saved_count, found.images_missing_count) == (8, 8)
    assert (found.fid, found.fid_reason) == (
        None,
        "FID was not computed; mlenergy quality computes it from the saved images",
    )


def test_every_setting_and_version_comes_from_its_own_key(tmp_path):
    environment = {**ENVIRONMENT, "nodes": [NODE, {**NODE, "hostname": "node-b"}]}
    found = record_of(tmp_path, environment=environment, joules=(1.0, 1.0), batch_size=2, seed=7)
    assert (found.model_id, found.family) == ("black-forest-labs/FLUX.1-dev", "flux")
    assert (found.pipeline_class, found.conditioning) == ("FluxPipeline", "text")
    assert (found.task, found.weights, found.engine) == ("text-to-image", "pretrained", "xdit")
    assert (found.device, found.device_name, found.dtype) == ("cuda", "NVIDIA H200", "bfloat16")
    assert (found.processes, found.ulysses_degree, found.ring_degree) == (2, 2, 1)
    assert (found.cfg_degree, found.data_degree, found.pipefusion_degree, found.tensor_degree) == (1, 1, 1, 1)
    assert (found.batch_size, found.width_px, found.height_px) == (2, 1024, 1024)
    assert (found.steps, found.guidance_scale, found.seed) == (28, 3.5, 7)
    assert (found.hostnames, found.nodes_count, found.gpu_names) == ("node-a, node-b", 2, "NVIDIA H200")
    assert (found.program_version, found.program_commit) == ("0.1.0", "c0ffee")
    assert (found.torch_version, found.xfuser_version, found.diffusers_version) == (
        "2.13.0",
        "0.7.0",
        "0.42.1",
    )
    assert (found.cuda_version, found.driver_version) == ("13.0", "580.65")
    assert json.loads(found.settings_json or "")["ulysses_degree"] == 2
    assert json.loads(found.versions_json or "")["driver"] == "580.65"


def test_repeats_of_one_set_up_have_equal_digests(tmp_path):
    one = record_of(tmp_path / "a", base_dir="a")
    again = record_of(tmp_path / "b", base_dir="b", seconds=(9.0, 9.1))
    larger = record_of(tmp_path / "c", batch_size=2)
    old = {**ENVIRONMENT, "versions": {**ENVIRONMENT["versions"], "torch": "2.12.0"}}
    older = record_of(tmp_path / "d", environment=old)
    elsewhere = record_of(
        tmp_path / "e", environment={**ENVIRONMENT, "nodes": [{**NODE, "hostname": "node-z"}]}
    )
    other_gpu = record_of(tmp_path / "f", device_name="NVIDIA A100")
    slower_cpu = {**ENVIRONMENT, "nodes": [{**NODE, "cpu": "Another CPU"}]}
    limited = {**ENVIRONMENT, "nodes": [{**NODE, "gpus": [{**NODE["gpus"][0], "power_limit_w": 400.0}]}]}
    apart = [record_of(tmp_path / f"g{n}", environment=e) for n, e in enumerate((slower_cpu, limited))]
    assert len({found.platform_digest for found in (one, *apart)}) == 3
    assert one.setup_digest == again.setup_digest == older.setup_digest == elsewhere.setup_digest
    assert one.platform_digest == again.platform_digest == elsewhere.platform_digest
    assert one.setup_digest != larger.setup_digest
    assert one.platform_digest not in (older.platform_digest, other_gpu.platform_digest)


def test_long_texts_stay_different_and_short(tmp_path):
    one = record_of(tmp_path / "a", negative_prompt="x" * 1_000_000 + "a")
    other = record_of(tmp_path / "b", negative_prompt="x" * 1_000_000 + "b")
    assert one.setup_digest != other.setup_digest
    assert len(one.settings_json or "") < 5000


def test_a_result_without_minor_version_or_later_keys_is_read(tmp_path):
    content = result()
    for key in ("schema_minor_version", "effects_pending", "effects_failed", "load", "efficiency"):
        content.pop(key, None)
    found = record_of(tmp_path, content)
    assert (found.state, found.schema_minor_version) == ("complete", 0)
    assert found.mfu_reason == "not in this result"
    later = record_of(tmp_path, {**result(), "schema_minor_version": 99, "a_later_key": {"x": [1]}})
    assert (later.state, later.schema_minor_version) == ("complete", 99)


def test_a_result_of_before_versions_has_the_figures_at_its_top(tmp_path):
    content = {"model_id": "org/model", "batch_size": 3, "completed": 6, "generation_time": 12.0}
    found = record_of(tmp_path, {**content, "total_energy_j": 600.0})
    assert (found.state, found.schema_version, found.batch_size) == ("complete", 0, 3)
    assert (found.time_per_image_mean_s, found.energy_per_image_mean_j) == (2.0, 100.0)
    assert found.time_interval_reason == found.memory_reason == found.stages_reason == "not in this result"
    assert found.ulysses_degree is None


def test_unknown_is_none_with_the_results_own_reason(tmp_path):
    found = record_of(tmp_path, on_cpu=True, peak_bytes=None, seconds=(1.5,))
    assert (found.energy_total_j, found.energy_per_image_mean_j, found.mean_power_w) == (None, None, None)
    assert found.energy_reason == "no GPU takes part: the run is on the CPU"
    assert (found.peak_memory_gb, found.memory_reason) == (None, "the CPU's allocator keeps no peak")
    assert found.time_per_image_ci95_half_s is None
    assert "one value has no spread" in (found.time_interval_reason or "")


def test_joules_that_stood_still_are_not_known(tmp_path):
    found = record_of(tmp_path, joules=(0.0, 0.0))
    assert (found.energy_total_j, found.energy_per_image_mean_j) == (None, None)
    assert "did not move" in (found.energy_reason or "")


WHOLE = result()


@pytest.mark.parametrize(
    ("content", "state", "reason"),
    [
        ("", "broken", "not whole JSON"),
        ('{"schema_version": 1, "comp', "broken", "not whole JSON"),
        ("[" * 100_000, "broken", "nested too deeply"),
        (json.dumps({**WHOLE, "total_energy_j": float("nan")}), "broken", "NaN is not a number of JSON"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "broken", "not whole JSON"),
        ("[]", "foreign", "its JSON is no object"),
        ('{"name": "other"}', "foreign", "it lacks model_id, completed, generation_time"),
        ({**WHOLE, "schema_version": 3}, "newer", "has schema version 3, this program reads up to 2"),
        ({**WHOLE, "schema_version": "one"}, "foreign", "its schema_version is 'one'"),
        ({**WHOLE, "schema_version": True}, "foreign", "its schema_version is True"),
        ({**WHOLE, "completed": 0}, "broken", "0 images in"),
        ({**WHOLE, "completed": -1}, "broken", "-1 images in"),
        ({**WHOLE, "completed": "8"}, "broken", "completed is '8', not a whole number"),
        ({**WHOLE, "completed": 10**30}, "broken", "not a whole number"),
        ({**WHOLE, "generation_time": 0}, "broken", "8 images in 0.0 s cannot be"),
        ({**WHOLE, "generation_time": 1e301}, "broken", "not a finite number"),
        ({**WHOLE, "generation_time": True}, "broken", "generation_time is True, not a number"),
        ({**WHOLE, "peak_memory_gb": -1.0}, "broken", "peak_memory_gb is -1.0, not 0 or more"),
        ({**WHOLE, "statistics": []}, "broken", "statistics is [], not an object"),
        ({**WHOLE, "warnings": "none"}, "broken", "warnings is 'none', not a list"),
        ({**WHOLE, "warnings": ["drift"]}, "broken", "warnings[0] is 'drift', not an object"),
        ({**WHOLE, "model_id": 5}, "broken", "model_id is 5, not a text"),
        ({**WHOLE, "effects_failed": ["no effect of x"]}, "effects_failed", "no effect of x"),
        ({**WHOLE, "effects_pending": True}, "effects_pending", "not looked at yet"),
    ],
)  # fmt: skip
def test_what_is_no_complete_result_says_why(tmp_path, content, state, reason):
    loaded = load_result(save(tmp_path, content) / "results.json")
    assert loaded.record.state == state
    assert reason in (loaded.record.reason or "")
    assert loaded.content is None


def test_a_half_surrogate_pair_is_escaped(tmp_path):
    found = record_of(tmp_path, json.dumps({**WHOLE, "model_id": "a\ud800b"}))
    assert found.model_id == "a\\ud800b"


@pytest.mark.parametrize(
    ("name", "content", "state", "reason"),
    [
        ("results_interrupted.json", WHOLE, "interrupted", "stopped after 2 measured iterations"),
        ("results_interrupted.json", "{", "broken", "not whole JSON"),
        ("status.json", {"state": "failed", "message": "out of memory"}, "failed", "out of memory"),
        ("status.json", {"state": "interrupted", "stage": "load"}, "interrupted", "interrupted while load"),
        ("status.json", {"state": "running", "stage": "measuring"}, "running", "running while measuring"),
        ("status.json", {"state": "complete"}, "broken", "results.json is not there"),
        ("status.json", {"state": "sold"}, "foreign", "not a status of this program"),
        ("status.json", [], "foreign", "no object"),
    ],
)  # fmt: skip
def test_a_run_without_a_result_says_how_it_ended(tmp_path, name, content, state, reason):
    text = content if isinstance(content, str) else json.dumps(content)
    found = load_result(save(tmp_path, text, name) / name).record
    assert found.state == state
    assert reason in (found.reason or "")
    assert found.time_per_image_mean_s is None


def test_a_file_that_cannot_be_read_is_no_crash(tmp_path):
    (tmp_path / "results.json").mkdir()
    found = load_result(tmp_path / "results.json").record
    assert (found.state, found.reason) == ("unreadable", "cannot be read: Is a directory")
    assert load_result(tmp_path / "absent" / "results.json").record.state == "unreadable"


def test_images_are_counted_in_the_results_own_folder_only(tmp_path):
    content = result(images=True)
    save(tmp_path / "other", "png", "secret.png")
    save(tmp_path / "run" / "image_outputs", "png", "0.png")
    save(tmp_path / "run" / "image_outputs", "png", "1.png")
    content["generation_results"][2]["image"] = "../other/secret.png"
    content["generation_results"][3]["image"] = str(tmp_path / "other" / "secret.png")
    found = record_of(tmp_path / "run", content)
    assert (found.images_saved_count, found.images_missing_count) == (8, 6)


def test_a_folder_is_searched_to_any_depth_and_links_are_named(tmp_path):
    for name in ("b/2", "b/10", "a"):
        save(tmp_path / name, "{}")
    save(tmp_path / "a", "{}", "status.json")  # a result is there: its status is not listed
    save(tmp_path / "a" / "image_outputs", "{}")
    save(tmp_path / "a" / ".new", "{}")
    save(tmp_path / "c", "{}", "status.json")
    save(tmp_path / "d", "{}", "results_interrupted.json")
    save(tmp_path / "d", "{}", "status.json")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = [(one.folder, one.file or one.state) for one in find_results(tmp_path)]
    assert found == [
        ("link", "not_followed"),
        ("a", "results.json"),
        ("b/10", "results.json"),
        ("b/2", "results.json"),
        ("c", "status.json"),
        ("d", "results_interrupted.json"),
    ]


def test_patterns_name_several_folders_and_a_word_without_any_is_refused(tmp_path):
    for name in ("run-1", "run-2", "other[1]"):
        (tmp_path / name).mkdir()
    assert expand([f"{tmp_path}/run-*", f"{tmp_path}/run-1"]) == [tmp_path / "run-1", tmp_path / "run-2"]
    assert expand([f"{tmp_path}/other[1]"]) == [tmp_path / "other[1]"]
    for word in ("none", "none-*"):
        with pytest.raises(UserError, match=r"there is no .*none.*; name a result folder"):
            expand([f"{tmp_path}/{word}"])
