"""What each dataset is: plain data, so that listing imports nothing."""

from __future__ import annotations

from typing import Any

_RANGE = (
    "values of black and white in the pictures, LOW..HIGH; 'auto' (default): by type, "
    "uint8 0..255, uint16 0..65535, float 0..1, others are asked for"
)
_NAN = "what to do with voxels that hold NaN: 'error' (default) or 'drop' (left out of train and test alike)"
_MAT_OPTIONS = {
    "nan": _NAN,
    "zscore": "'none' (default: as in the file) or 'train' (mean and deviation of training trials)",
    "range": _RANGE,
    "order": "'F' (default: pictures stored column by column, as MATLAB does) or 'C'",
}
_NIFTI_OPTIONS = {
    "nan": _NAN,
    "zscore": "'session' (default: statistics of the training trials of each session) or 'none'",
    "range": _RANGE,
}

CARDS: list[dict[str, Any]] = [
    {
        "name": "simulated",
        "title": "simulated subjects: a forward model of visual cortex looking at pictures",
        "simulated": True,
        "terms": "made by this program; the pictures keep the terms of the folder they came from",
        "size": "small: 4 subjects of 1,200 voxels, 780 trials; cohort-small: 4 of 2,000, 940; "
        "cohort: 8 of 4,000, 4,900",
        "source": "brainit.datasets.simulated",
        "how": "made on first use, or by: brainlab data fetch simulated",
        "module": "brainit.datasets.simulated",
        "fetches": True,
        "options": {
            **_NIFTI_OPTIONS,
            "preset": "'small' (default), 'cohort-small' or 'cohort': size when the subjects have to be made",
            "seed": "seed of the subjects when they have to be made (default 0)",
            "stimuli": "folder, parquet file or array of pictures to show (default: procedural pictures)",
            "test_stimuli": "another source for the test pictures (default: the same)",
            "features": "what ventral voxels read: 'alexnet' (default), 'random', 'encoder-64' (circular)",
        },
    },
    {
        "name": "digits69",
        "title": "real fMRI of one person looking at handwritten 6s and 9s (90 + 10 trials, 28x28)",
        "simulated": False,
        "terms": "licence not stated by the copies in circulation: for research, do not redistribute",
        "size": "2.4 MB",
        "source": "van Gerven et al. 2010; Donders Repository di.dcc.DSC_2018.00112_485",
        "how": "get digit69_28x28.mat from the public GitHub repository ChangdeDu/DGMM and put it there",
        "module": "brainit.datasets.digits69",
        "options": _MAT_OPTIONS,
    },
    {
        "name": "kay2008",
        "title": "real fMRI of one person looking at natural grey pictures (1,750 + 120 trials, 128x128)",
        "simulated": False,
        "terms": "CRCNS vim-1: for research; cite Kay et al. (2008) and the data, doi 10.6080/K0QN64NG; the "
        "copy on OSF states no licence: do not redistribute",
        "size": "about 190 MB as arrays",
        "source": "Kay et al. 2008, doi 10.1038/nature06713; kay_images.npz as passed on (OSF ymnjv)",
        "how": "download it with: brainlab data fetch kay2008 (kay_images.npz is https://osf.io/ymnjv)",
        "module": "brainit.datasets.kay2008",
        "fetches": True,
        "options": {
            "nan": "voxels that hold NaN: 'drop' (default: left out of train and test alike) or 'error'",
            "zscore": "'none' (default: the file's responses are z-scored) or 'train'",
            "range": "values of black and white, LOW..HIGH; 'auto' (default): smallest and largest of all",
            "label_level": "row of the labels, 1 (default, general) to 4 (special)",
        },
    },
    {
        "name": "mat",
        "title": "any .mat file with fmriTrn, fmriTest, stimTrn, stimTest (and labelTrn, labelTest)",
        "simulated": False,
        "terms": "those of your file",
        "size": "-",
        "source": "your file",
        "how": "give the .mat file as root (--root FILE.mat)",
        "module": "brainit.datasets.mat",
        "options": _MAT_OPTIONS,
    },
    {
        "name": "arrays",
        "title": "any folder of betas as .npy, .h5 or .mat matrices, tables of trials, and pictures",
        "simulated": False,
        "terms": "those of your files",
        "size": "-",
        "source": "your folder",
        "how": "give the folder as root (--root): ses-01_betas.npy (a row a trial; in .h5 and .mat the "
        "matrix 'betas'), ses-01_events.tsv (a row a trial: stimulus_id, split, which is train or test), "
        "stimuli/STIMULUS_ID.png; people in folders of their own, sub-01/ses-01_betas.npy",
        "module": "brainit.datasets.arrays",
        "options": _NIFTI_OPTIONS,
    },
    {
        "name": "haxby2001",
        "title": "real 4D BOLD: 8 categories in blocks, 12 runs; which picture is not recorded",
        "simulated": False,
        "terms": "CC BY-SA 3.0 (Haxby et al. 2001), cite the paper; nilearn states no licence for its copy",
        "size": "310 MB a subject as nilearn downloads it",
        "source": "Haxby et al. 2001, doi 10.1126/science.1063736",
        "how": "download it with: brainlab data fetch haxby2001",
        "module": "brainit.datasets.haxby2001",
        "fetches": True,
        "options": {
            "image": "'auto' (default: the finest), '1slice' or '25mm': which BOLD file of the small copy",
            "mask": "'auto' (default), 'brain', 'gray', 'vt': a mask there; 'bold': voxels with signal",
            "test_run": "run whose blocks are marked 'test' (default: the last)",
            "zscore": "'run' (default: within each run) or 'none'",
            "hrf": "haemodynamic response of the model: 'glover' (default) or 'spm'",
            "noise": "noise model of nilearn.glm: 'ols' (default) or 'ar1'",
            "nan": _NAN,
            "baseline": "'percent' (default: of each voxel's mean) or 'none' (BOLD whose mean was removed)",
            "repetition_time": "seconds between volumes; default: what the header states",
        },
    },
    {
        "name": "nifti",
        "title": "any folder of NIfTI betas, masks and events in the layout that the simulator writes",
        "simulated": False,
        "terms": "those of your files",
        "size": "-",
        "source": "your folder",
        "how": "give the folder as root (--root): sub-01/NAME_mask.nii.gz, sub-01/ses-01/"
        "NAME_ses-01_desc-betas_statmap.nii.gz (a volume a trial), NAME_ses-01_events.tsv beside it (a row a "
        "trial: stimulus_id, split, which is train or test), stimuli/STIMULUS_ID.png",
        "module": "brainit.datasets.nifti",
        "options": _NIFTI_OPTIONS,
    },
]
