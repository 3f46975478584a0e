"""Reviews stream by: reading them costs memory by what is kept of a row, not by what stands in it."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline.settings import DatasetSettings

CHECKOUT = Path(__file__).resolve().parents[5]
FEW, MANY = 100_000, 400_000  # several blocks of lines each
NUM_ITEMS, NUM_USERS = 1_000, 5_000
MAX_BYTES_PER_REVIEW = 250  # of the 700 that a line has; 60 are kept, the rest is for sorting
# In a process of its own, because the peak is that of a whole process; few reviews first, as peaks only grow.
READ = """
import json, sys
from pathlib import Path
from pipeline.domains import read_domain
from pipeline.settings import DatasetSettings

for settings in json.loads(sys.argv[1]):
    num_rows = read_domain(DatasetSettings.model_validate(settings)).interactions.num_rows
    peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    print(json.dumps([num_rows, peak_kib * 1024]))
"""


def write_reviews(folder: Path, num_reviews: int) -> None:
    folder.mkdir()
    rest = f'"overall": 5.0, "verified": true, "reviewText": "{"Many words about it. " * 28}"'
    with gzip.open(folder / "reviews.json.gz", "wt", compresslevel=1) as file:
        for number in range(num_reviews):
            names = f'"reviewerID": "A{number % NUM_USERS}", "asin": "B{number // NUM_USERS}"'
            file.write(f'{{{names}, "unixReviewTime": {1_252_800_000 + number}, {rest}}}\n')
    with gzip.open(folder / "meta.json.gz", "wt") as file:
        for number in range(NUM_ITEMS):
            file.write(json.dumps({"asin": f"B{number}", "title": f"Thing {number}", "category": []}) + "\n")


def settings_of(folder: Path) -> dict[str, object]:
    settings = DatasetSettings.model_validate({
        "name": "shop", "reader": "amazon", "raw": str(folder), "max_bad_fraction": 0.0, "min_rating": 1,
        "max_rating": 5, "item_word": "product",
        "amazon": {"reviews": "reviews.json.gz", "metadata": "meta.json.gz", "k_core": 5},
        "item_groups": {"groups": {}}, "user_groups": {"num_groups": 2, "num_factors": 2},
    })  # fmt: skip
    return settings.model_dump(mode="json")


def test_memory_grows_by_little_for_each_review(tmp_path):
    for num_reviews in (FEW, MANY):
        write_reviews(tmp_path / str(num_reviews), num_reviews)
    settings = [settings_of(tmp_path / str(num_reviews)) for num_reviews in (FEW, MANY)]
    command = [sys.executable, "-c", READ, json.dumps(settings)]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stderr
    (few, first_peak), (many, last_peak) = map(json.loads, done.stdout.splitlines())
    assert (few, many) == (FEW, MANY)
    assert last_peak - first_peak < MAX_BYTES_PER_REVIEW * (MANY - FEW), (first_peak, last_peak)
