# Every target is one `python -m ...` line; run `make help` for all of them.
# Variables can be given on the make line or in the environment: make train DATASET=cifar100 SEED=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3##            the Python that builds .venv: 3.11 to 3.13
DATASET ?=##                   a dataset: cifar100, tinyimagenet, cub200, dogs, mit67, merged, imagenet, digits, or your own; data: also all
METHOD ?=##                    a method: cross-entropy, cs-kd, ... (docs/methods.md), or a composite such as mixup+cs-kd
SEED ?= 0##                    the seed of a single run (default 0)
ARCHITECTURE ?=##              the architecture of a single run: resnet18 (default), resnet10, resnet50, densenet121, ..., torchvision:<name>, timm:<name>
PROFILE ?=##                   paper (default); small: CIFAR-100 with all classes, on a CPU; mini: real images, on a CPU; demo: digits only
DATASETS ?=##                  datasets that replace the grid's: "cifar100 cub200"
METHODS ?=##                   methods that replace the grid's; all: the paper's full table; paired: two; tune-all: those to tune
ARCHITECTURES ?=##             architectures that replace the grid's; all: the paper's full table
SEEDS ?=##                     seeds that replace the grid's: "0 1 2"
SET ?=##                       settings to change: "schedule.epochs=10 methods.cs-kd.temperature=1"
WORKERS ?= auto##              runs at once; auto (default): one a GPU, or as many as the cores allow
GPUS ?=##                      GPUs for each run, which divide its batches between them (default 1)
LAUNCHER ?=##                  local (default); slurm: submit to Slurm; ray: tasks of a Ray cluster; print: print the command of each run, train nothing
SLURM ?=##                     options of sbatch, such as "--partition=gpu --time=8:00:00" (docs/clusters.md)
RAY_ADDRESS ?=##               LAUNCHER=ray: the address of the cluster, host:port (default: the one of this machine)
DRY_RUN ?=##                   1: print the plan, train nothing
RETRY ?=##                     1: run failed runs again
SKIP_MISSING ?=##              grids: 1 leaves out datasets that cannot be had, and runs the others
PARTIAL ?=##                   data: 1 accepts an incomplete copy of a dataset
GRID ?=##                      status: a grid or experiment (default: all)
EXPERIMENT ?=##                tables, report, measured: an experiment (default: all)
EXPERIMENTS ?=##               paired: two experiments, as 'make status' names them; or one, with METHODS
PORT ?=##                      the port of ui (default 5000) or dashboard (8080)
OPEN ?=##                      ui: 1 opens the newest experiment in a browser
TRIALS ?=##                    tune: trials of the whole study (default 30); tune-all: settings a method (default 12)
TUNE_SEEDS ?= 1##              tune, tune-all, ablate: the number of seeds of each trial (default 1); its result is their mean
SPACE ?=##                     tune: a space of experiments/spaces/<method>.yaml: default, paper; or equal: also lr and weight decay
OBJECTIVE ?=##                 tune: error (default), nll, ece; or two, such as error,ece; tune-all: one (default nll)
SAMPLER ?=##                   tune: gp (default), tpe, random, grid: a regular grid of TRIALS points
PRUNE ?=##                     tune: 1 stops poor trials after the first learning-rate drop
TIMEOUT ?=##                   tune, ablate: minutes after which no trial starts
STUDY ?=##                     tune, ablate: another name, for a new study beside an earlier one
TUNED ?=##                     1: use the tuned hyper-parameters in place of the recipe's
PARTS ?=##                     bench: steps, pipelines, memory, run, profile; waiting; gpu; reference, which needs REFERENCE (default: the first five)
KEEP ?=##                      bench: 1 also writes the measurements to results/measured/
REPLACE ?=##                   measured: 1 also replaces verdicts if some lose seeds or an interval
REFERENCE ?=##                 bench: a clone of the released code (github.com/alinlab/cs-kd), whose steps are timed too
DATA_DIR ?= data##             folder of the datasets
RUNS_DIR ?= runs##             folder of the run folders
RESULTS_DIR ?= results##       folder of the tables and figures
MLFLOW_TRACKING_URI ?=##       MLflow's store (default: mlflow.db in this folder)
MLFLOW_DEFAULT_ARTIFACT_ROOT ?=## folder or s3:// address of the artifacts, for a database that is not SQLite
OPTUNA_STORAGE ?=##            the studies' journal file or database URL (default: in RUNS_DIR)
TUNED_DIR ?=##                 folder of the tuned values (default: experiments/recipes/tuned)

export DATA_DIR RUNS_DIR RESULTS_DIR
ifneq ($(MLFLOW_TRACKING_URI),)
export MLFLOW_TRACKING_URI
endif
ifneq ($(MLFLOW_DEFAULT_ARTIFACT_ROOT),)
export MLFLOW_DEFAULT_ARTIFACT_ROOT
endif
ifneq ($(RAY_ADDRESS),)
export RAY_ADDRESS
endif
ifneq ($(OPTUNA_STORAGE),)
export OPTUNA_STORAGE
endif
ifneq ($(SLURM),)
export SLURM
endif
ifneq ($(TUNED_DIR),)
export TUNED_DIR
endif

# Without these checks, a misspelt variable, or one that the target does not use, could start a larger job.
KNOWN := $(shell sed -nE 's/^([A-Z_]+) [?:]?=.*/\1/p' $(firstword $(MAKEFILE_LIST)))
UNKNOWN := $(filter-out $(KNOWN) SHELL MAKEFLAGS,$(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v)))
NEAREST = $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1, 0.7))' $1 $(KNOWN))
$(foreach v,$(filter-out -%,$(UNKNOWN)),$(error error: there is no variable $v: $(if $(call NEAREST,$v),did you mean \
	$(call NEAREST,$v)?,settings of a recipe are given as SET="schedule.epochs=10"; 'make help' lists all variables)))

CHOICES := DATASET METHOD ARCHITECTURE SEED DATASETS METHODS ARCHITECTURES SEEDS TUNE_SEEDS GRID EXPERIMENT EXPERIMENTS
TAKES_demo :=
TAKES_data := DATASET
TAKES_reproduce := DATASETS METHODS ARCHITECTURES SEEDS
TAKES_ingredients := $(TAKES_reproduce)
TAKES_train := DATASET METHOD ARCHITECTURE SEED
TAKES_tune := DATASET METHOD ARCHITECTURE TUNE_SEEDS
TAKES_tune-all := DATASET METHODS ARCHITECTURE TUNE_SEEDS
TAKES_ablate := $(TAKES_tune)
TAKES_tuned := DATASET METHOD
TAKES_bench := DATASETS METHODS ARCHITECTURES
TAKES_status := GRID
TAKES_tables := EXPERIMENT
TAKES_report := EXPERIMENT
TAKES_measured := EXPERIMENT
TAKES_paired := EXPERIMENTS METHODS

COMMA := ,
# Lists may have commas: SEEDS=0,1,2
$(foreach v,DATASETS METHODS ARCHITECTURES SEEDS EXPERIMENTS PARTS,$(eval override $v := $(subst $(COMMA), ,$($v))))
LISTED = $(subst $() $(),$(COMMA) ,$(strip $1))
GIVEN := $(foreach name,$(CHOICES),$(if $($(name)),$(if $(filter environment command override,$(origin $(name))),$(name))))
# $1: a target; $2: the name of its TAKES_ variable, undefined for a target that is not checked
CHECK = $(if $(filter-out undefined,$(origin $2)),$(if $(filter-out $($2),$(GIVEN)),$(error error: $1 \
	$(if $($2),takes $(call LISTED,$($2))$(COMMA) not,does not take) $(call LISTED,$(filter-out $($2),$(GIVEN))))))
$(foreach goal,$(MAKECMDGOALS),$(call CHECK,$(goal),TAKES_$(patsubst reproduce-%,reproduce,$(goal))))

# Each content of requirements.lock has its own folder. The link .venv points to it once it is complete.
VENV := .venv
RUN := $(VENV)/bin/python
LOCKED := $(subst $() $(),-,$(shell cksum < requirements.lock))
BUILT := $(VENV)-$(LOCKED)
READY := $(VENV)/.ready-$(LOCKED)

TRAINING = $(if $(PROFILE),--profile $(PROFILE)) $(foreach s,$(SET),--set '$(s)') --workers $(WORKERS) $(if $(GPUS),--gpus $(GPUS)) \
	$(if $(LAUNCHER),--launcher $(LAUNCHER)) $(if $(filter-out 0,$(DRY_RUN)),--dry-run) \
	$(if $(filter-out 0,$(RETRY)),--retry)
LAUNCH = $(TRAINING) $(if $(filter-out 0,$(TUNED)),--tuned) $(if $(filter-out 0,$(SKIP_MISSING)),--skip-missing)
CROSS = $(if $(DATASETS),--datasets $(DATASETS)) $(if $(METHODS),--methods $(METHODS)) \
	$(if $(ARCHITECTURES),--architectures $(ARCHITECTURES)) $(if $(SEEDS),--seeds $(SEEDS))

.PHONY: help setup demo setup-clusters test test-faults test-clusters data reproduce-table1 reproduce-table2 reproduce-table3 \
	reproduce-table4 reproduce-table5 reproduce-table6 reproduce-figure4 ingredients bench train tune tune-all ablate \
	tuned dashboard status tables report paired measured readme ui sync audit lint lock

help: ## list all targets and variables
	@echo "Targets"; grep -E '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	  | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1|\2/' | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'
	@echo "Variables (a target before a colon: what the variable means there)"; grep -E '^[A-Z_]+ \?=.*##' $(firstword $(MAKEFILE_LIST)) \
	  | sed -E 's/^([A-Z_]+) .*## *(.*)/  \1|\2/' | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

setup: $(READY) ## build .venv from requirements.lock; does nothing when it is up to date

# The environment in use is not touched until the new one is complete, and stays in use if that cannot be built.
$(READY):
	@case "$$(readlink $(VENV) || ls -d $(VENV) 2>/dev/null)" in "" | $(VENV)-*) ;; *) \
	  echo "error: $(VENV) was not built by make: move it away, then run make setup again" >&2; exit 2 ;; esac
	@if [ -e $(BUILT)/.ready-$(LOCKED) ] || { $(BUILD) && touch $(BUILT)/.ready-$(LOCKED); }; then \
	  ln -sfn $(BUILT) $(VENV); \
	  for other in $(VENV)-*; do [ $$other = $(BUILT) ] || echo "$$other is not used any more: remove it"; done; \
	elif [ -x $(RUN) ]; then \
	  echo "warning: $(VENV) could not be renewed from the changed requirements.lock (see above): the old one is used" >&2; \
	else echo "error: $(VENV) could not be built (see above): run make setup again" >&2; exit 2; fi

BUILD = { $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "$(PYTHON) is not Python 3.11 to 3.13: give another one, as PYTHON=python3.12" >&2; false; }; } \
	&& echo "setting up $(BUILT): about 6 GB, a few minutes" && $(PYTHON) -m venv --clear $(BUILT) \
	&& $(BUILT)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock \
	  $(if $(wildcard $(RUN)),--retries 1)

demo: $(READY) ## the main job in minutes: both methods on digits, five seeds each, then the tables
	@$(RUN) -m experiments grid demo $(LAUNCH) --tables

# Each process runs tests that follow each other, and so share fixtures; one that is done takes over tests of another.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist worksteal

test: $(READY) ## run the tests
	@$(PYTEST)

test-faults: $(READY) ## kill processes, fill disks, damage files while commands run, all cases; print one line per fault
	@$(PYTEST) tests/faults --all-faults

# The versions are those of requirements.lock, but for an older python-dateutil, which boto3 needs.
setup-clusters: $(READY) ## add the packages of Ray, PostgreSQL and S3 to .venv, from requirements-clusters.lock
	@[ -e $(VENV)/.clusters-$(CLUSTERS) ] || { $(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
	  --requirement requirements-clusters.lock && touch $(VENV)/.clusters-$(CLUSTERS); }

CLUSTERS = $(subst $() $(),-,$(shell cksum < requirements-clusters.lock))

test-clusters: $(READY) ## train on a real Slurm and Ray, PostgreSQL and S3, started on this machine; print one line per case
	@$(MAKE) --no-print-directory setup-clusters || echo "warning: the tests that need these packages are skipped" >&2
	@$(PYTEST) --dist loadfile tests/clusters --clusters

data: $(READY) ## download, verify and prepare DATASET (or all that need no account)
	@$(RUN) -m experiments data $(or $(DATASET),$(error give DATASET: make data DATASET=cub200, or DATASET=all)) \
	  $(if $(filter-out 0,$(PARTIAL)),--partial)

reproduce-table1: $(READY) ## table 1: five datasets x cross-entropy, cs-kd x three seeds, ResNet-18; METHODS=all: the full table
	@$(RUN) -m experiments grid table1 $(CROSS) $(LAUNCH) --tables

reproduce-table2: $(READY) ## table 2: cs-kd beside the self-distillation methods ddgsd and byot
	@$(RUN) -m experiments grid table2 $(CROSS) $(LAUNCH) --tables

reproduce-table3: $(READY) ## table 3: does cs-kd improve mixup?
	@$(RUN) -m experiments grid table3 $(CROSS) $(LAUNCH) --tables

reproduce-table4: $(READY) ## table 4: does cs-kd improve kd? ResNet-10 with a DenseNet-121 as teacher, which is trained first
	@$(RUN) -m experiments grid table4 $(CROSS) $(LAUNCH) --tables

reproduce-table5: $(READY) ## table 5: ImageNet with ResNet-50, ResNet-101 and ResNeXt-101-32x4d x cross-entropy, cs-kd
	@$(RUN) -m experiments grid table5 $(CROSS) $(LAUNCH) --tables

reproduce-table6: $(READY) ## table 6: top-5 error, ECE and R@1 of table 1's methods and of cs-kd-e
	@$(RUN) -m experiments grid table6 $(CROSS) $(LAUNCH) --tables top5_error ece recall_at_1

reproduce-figure4: $(READY) ## figure 4: CUB, Dogs and MIT67 merged x cross-entropy, cs-kd x three seeds
	@$(RUN) -m experiments grid figure4 $(CROSS) $(LAUNCH) --tables

ingredients: PROFILE := $(or $(PROFILE),mini)
ingredients: $(READY) ## what makes CS-KD work: variants that each leave out one ingredient, PROFILE=mini by default
	@$(RUN) -m experiments grid ingredients $(CROSS) $(LAUNCH) --tables

train: $(READY) ## one run: DATASET, METHOD, SEED, PROFILE
	@$(RUN) -m experiments train --dataset $(or $(DATASET),$(error give DATASET and METHOD: make train DATASET=cifar100 METHOD=cs-kd)) \
	  --method $(or $(METHOD),$(error give DATASET and METHOD: make train DATASET=cifar100 METHOD=cs-kd)) --seed $(SEED) \
	  $(if $(ARCHITECTURE),--architectures $(ARCHITECTURE)) $(LAUNCH)

STUDIES = --dataset $(or $(DATASET),$(error give DATASET: make $1 DATASET=cifar100)) \
	$(if $(ARCHITECTURE),--architecture $(ARCHITECTURE)) --seeds $(TUNE_SEEDS) $(TRAINING)
STUDY_OPTIONS = $(if $(METHOD),--method $(METHOD)) $(if $(TIMEOUT),--timeout $(TIMEOUT)) $(if $(STUDY),--study '$(STUDY)')
OBJECTIVES = $(if $(TRIALS),--trials $(TRIALS)) $(if $(OBJECTIVE),--objective $(OBJECTIVE))

tune: $(READY) ## tune a method's hyper-parameters on validation images: DATASET, METHOD (default cs-kd), TRIALS
	@$(RUN) -m experiments tune $(call STUDIES,tune) $(STUDY_OPTIONS) $(OBJECTIVES) $(if $(SPACE),--space $(SPACE)) \
	  $(if $(SAMPLER),--sampler $(SAMPLER)) $(if $(filter-out 0,$(PRUNE)),--prune)

tune-all: $(READY) ## tune METHODS (default: the paper's) at equal budgets, learning rate and weight decay too: DATASET, TRIALS
	@$(RUN) -m experiments tune-all $(call STUDIES,tune-all) $(OBJECTIVES) $(if $(METHODS),--methods $(METHODS))

ablate: $(READY) ## measure the paper's grid of T and lambda_cls on validation images, and draw a heat map: DATASET, METHOD
	@$(RUN) -m experiments ablate $(call STUDIES,ablate) $(STUDY_OPTIONS)

tuned: $(READY) ## show the tuned hyper-parameters beside the recipe's: DATASET, METHOD (default: all)
	@$(RUN) -m experiments tuned $(if $(DATASET),--dataset $(DATASET)) $(if $(METHOD),--method $(METHOD))

dashboard: $(READY) ## serve optuna-dashboard on 127.0.0.1
	@$(RUN) -m experiments dashboard $(if $(PORT),--port $(PORT))

bench: $(READY) ## measure the cost of training on this machine: PARTS
	@$(RUN) -m experiments bench $(if $(PARTS),--parts $(PARTS)) $(if $(REFERENCE),--reference '$(REFERENCE)') \
	  $(if $(DATASETS),--datasets $(DATASETS)) $(if $(METHODS),--methods $(METHODS)) \
	  $(if $(ARCHITECTURES),--architectures $(ARCHITECTURES)) $(if $(PROFILE),--profile $(PROFILE)) \
	  $(foreach s,$(SET),--set '$(s)') $(if $(filter-out 0,$(KEEP)),--keep)

status: $(READY) ## show a grid as a matrix: done, running, interrupted, failed and why, missing
	@$(RUN) -m experiments status $(GRID)

tables: $(READY) ## make the error, ECE and reliability tables from the tracked runs
	@$(RUN) -m analysis tables $(if $(EXPERIMENT),--experiment $(EXPERIMENT))

report: $(READY) ## make results/report.html: every table, figure and verdict in one page
	@$(RUN) -m analysis report $(if $(EXPERIMENT),--experiment $(EXPERIMENT))

paired: $(READY) ## compare two EXPERIMENTS with the same seeds, or two METHODS of one: differences, paired by seed
	@$(RUN) -m analysis paired $(or $(EXPERIMENTS),$(error give EXPERIMENTS: make paired EXPERIMENTS="table1 table1-custom-...", \
	  or EXPERIMENTS=demo METHODS="cross-entropy cs-kd")) $(if $(METHODS),--methods $(METHODS))

measured: $(READY) ## write tracked results to results/measured/, as CSV files for git
	@$(RUN) -m analysis measured $(if $(EXPERIMENT),--experiment $(EXPERIMENT)) $(if $(filter-out 0,$(REPLACE)),--replace)

readme: $(READY) ## regenerate the result tables of the documents from results/measured/
	@$(RUN) -m analysis readme

ui: $(READY) ## serve the MLflow UI on 127.0.0.1
	@$(RUN) -m experiments ui $(if $(PORT),--port $(PORT)) $(if $(filter-out 0,$(OPEN)),--open)

sync: $(READY) ## upload to MLflow what it lacks, or everything to another store
	@$(RUN) -m experiments sync

audit: ## check the pinned dependencies for known vulnerabilities; needs uv and a network
	@command -v uvx >/dev/null || { echo "error: not audited: uvx is not installed: install uv" >&2; exit 2; }
	@uvx --quiet pip-audit --requirement requirements.lock --require-hashes --disable-pip --progress-spinner off \
	  || { echo "error: vulnerabilities, listed above; or not audited: no network" >&2; exit 1; }

lint: $(READY) ## check the style and the import directions
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports

# The packages of clusters have a lock of their own, which agrees with requirements.lock: only a few users need them.
lock: ## regenerate requirements.lock and requirements-clusters.lock from pyproject.toml; needs uv
	uv pip compile pyproject.toml $(foreach extra,suite tracking tuning analysis test,--extra $(extra)) $(COMPILED) \
	  --upgrade --output-file requirements.lock
	$(PYTHON) -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["ray"], *extras["stores"], *extras["test-clusters"], sep="\n")' \
	  | uv pip compile - --constraint requirements.lock $(COMPILED) --upgrade --output-file requirements-clusters.lock

COMPILED := --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock"
