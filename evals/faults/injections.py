"""The faults that can be played live: how each comes, what happens to it meanwhile, how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evals.faults import intervals, steps, twists
from evals.faults.steps import Injection, lasting, passing

__all__ = ["INJECTIONS", "Injection"]


INJECTIONS: Mapping[str, Injection] = MappingProxyType(
    {
        "F01": passing(steps.close_source, steps.open_source, "fetch", after=steps.BACK_AFTER),
        "F02": lasting(steps.point_elsewhere, steps.restore_connection, "fetch", past=steps.healthy_run),
        "F03": passing(steps.source_with(status=503), steps.mend_source, "fetch", after=steps.BUSY_FOR),
        "F04": passing(
            steps.source_with(status=429, retry_after=steps.RETRY_AFTER),
            steps.mend_source,
            "fetch",
            after=steps.RETRY_AFTER,
        ),
        "F05": lasting(steps.source_with(status=401), steps.mend_source, "fetch"),
        "F06": lasting(steps.source_with(status=403), steps.mend_source, "fetch"),
        "F07": steps.wrong_data(renamed={"email": "email_address"}),
        "F08": steps.wrong_data(extra=("nickname",)),
        "F09": steps.wrong_data(dropped=("email",)),
        "F10": steps.wrong_data(separators=True),
        "F11": steps.wrong_data(date_format="%d/%m/%Y"),
        "F12": steps.wrong_data(lacking="email", lacking_fraction=steps.FEW),
        "F13": steps.wrong_data(lacking="email", lacking_fraction=steps.MANY),
        "F14": steps.wrong_data(duplicates=steps.TWICE),
        "F15": lasting(steps.lose_departments, steps.restore_departments, "fetch"),
        "F16": steps.wrong_data(empty=True),
        "F17": lasting(steps.delete_variable, steps.restore_settings, "fetch"),
        "F18": lasting(steps.delete_connection, steps.restore_connection, "fetch"),
        "F19": passing(
            steps.source_with(slow=steps.TOO_SLOW),
            steps.mend_source,
            "fetch",
            after=0,
            before=steps.usual_runs,
        ),
        "F20": lasting(steps.source_with(slow=steps.ALWAYS_SLOW), steps.restore_contract, "fetch"),
        "F21": lasting(twists.narrow_memory, twists.restore_all, "load"),
        "F22": Injection(steps.slow_load, steps.normal_load, steps.kill_each_try, "load"),
        "F23": passing(steps.lock_warehouse, steps.unlock_warehouse, "load", after=steps.LOCKED_FOR),
        "F24": Injection(steps.empty_pool, steps.restore_settings, steps.stuck_in_pool, "load"),
        "F25": lasting(
            steps.code("employees_transform.py", steps.UNINSTALLED_TRANSFORM), steps.restore_code, "transform"
        ),
        "F26": lasting(
            steps.code("employees_transform.py", steps.BROKEN_TRANSFORM), steps.restore_code, "transform"
        ),
        "F27": Injection(
            steps.break_dag_file, steps.restore_code, steps.import_error_known, None, triggers=False
        ),
        "F28": lasting(steps.break_sql, steps.restore_code, "load"),
        "F29": lasting(steps.fill_disk, steps.restore_code, "load"),
        "F30": lasting(twists.expire_certificate, twists.renew_certificate, "fetch"),
        "F31": lasting(
            steps.code("employees_transform.py", steps.SHELL_TRANSFORM), steps.restore_code, "transform"
        ),
        "F32": Injection(
            steps.code("employees_transform.py", steps.SILENT_TRANSFORM),
            steps.restore_code,
            steps.empty_log,
            "transform",
            symptom=steps.transform_fails,
        ),
        "F33": lasting(
            steps.code("employees_transform.py", steps.UNSERIALISABLE_TRANSFORM),
            steps.restore_code,
            "transform",
        ),
        "F34": passing(
            twists.unsafe_and_closed, twists.safe_and_open, "fetch", after=steps.BACK_AFTER, within=300
        ),
        "F35": steps.wrong_data(renamed={"email": "email_address"}),
        "F36": lasting(steps.lock_warehouse, steps.unlock_warehouse, "load", within=400),
        "F37": Injection(
            steps.close_source,
            steps.open_source,
            twists.shards_fail,
            "pull",
            dag_id=twists.SHARDS,
            symptom=twists.some_shard_fails,
            within=1800,
        ),
        "F38": lasting(
            steps.code("employees_transform.py", twists.ORDERING_TRANSFORM), steps.restore_code, "transform"
        ),
        "F39": Injection(steps.close_source, steps.open_source, steps.mend_before_retry, None),
        "F40": steps.wrong_data(renamed={"email": "email_address"}),
        "F41": passing(steps.close_source, steps.open_source, "fetch", after=steps.BACK_AFTER),
        "F42": passing(steps.close_source, steps.open_source, "fetch", after=steps.BACK_AFTER, within=400),
        "F43": Injection(steps.nothing, steps.nothing, steps.ends_well, None, also=steps.slow_and_skipped),
        "F44": Injection(steps.close_source, steps.open_source, steps.mend_before_retry, None),
        "F45": passing(
            steps.close_source, steps.open_source, "fetch", after=steps.BACK_AFTER, seen_before=True
        ),
        "F46": lasting(
            steps.source_with(status=429), twists.unpause, "fetch", before=twists.fail_again_and_again
        ),
        "F47": Injection(
            intervals.pause_by_mistake,
            steps.nothing,  # it runs on until the world is reset: ending it would be a failure of its own
            intervals.is_missed,
            None,
            triggers=False,
            dag_id=intervals.INTERVALS,
            symptom=intervals.nothing_ran,
            past=intervals.run_by_the_clock,
        ),
        "F48": Injection(
            twists.break_ratings,
            twists.end_ratings,
            twists.enrichment_fails,
            "enrich",
            dag_id=twists.ENRICHED,
            within=400,
        ),
        "F49": lasting(steps.no_feed_run, steps.restore_departments, "fetch"),
    }
)
