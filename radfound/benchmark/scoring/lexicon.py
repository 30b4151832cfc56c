"""Lexicon of radiological findings and their phrases.

A phrase is a regular expression over lower-case text; spaces stand for spaces or hyphens, and a plural
ending may follow. There is no hierarchy: "subdural hematoma" and "hemorrhage" are two findings. The list is
this project's own; it covers the most frequent findings of teaching cases, chest radiograph reports and
question sets, and is not complete.
"""

from __future__ import annotations

FINDINGS: dict[str, tuple[str, ...]] = {
    # chest
    "pleural effusion": (
        "pleural effusion",
        "effusion",
        "pleural fluid",
        "hydrothorax",
        "blunt(?:ing|ed)(?: of)?(?: the)?(?: left| right)? costophrenic (?:angle|sulcus|sulci)",
    ),
    "pneumothorax": ("(?:hydro|tension )?pneumothora(?:x|ces|xes)",),
    "pneumomediastinum": ("pneumomediastinum", "mediastinal (?:air|emphysema)"),
    "consolidation": (
        "consolidations?",
        "air ?space (?:disease|opacit(?:y|ies)|process)",
        "consolidative \\w+",
    ),
    "ground-glass opacity": (
        "ground glass(?: (?:opacit(?:y|ies)|opacification|attenuation|change))?",
    ),
    "opacity": ("opacit(?:y|ies)", "opacification", "infiltrates?", "densities"),
    "atelectasis": (
        "atelecta(?:sis|ses|tic change)",
        "(?:lung|lobar|lobe|(?:upper|middle|lower) lobe|[lr][uml]l) collapse",
    ),
    "pneumonia": ("(?:broncho)?pneumonia", "pneumonitis"),
    "pulmonary edema": ("pulmonary o?edema", "interstitial o?edema", "alveolar o?edema"),
    "pulmonary congestion": ("(?:pulmonary )?(?:vascular|venous) congestion", "cephalization"),
    "pulmonary nodule": ("(?:pulmonary|lung) nod(?:ule|ular opacit(?:y|ies))s?",),
    "nodule": ("nodules?", "nodularit(?:y|ies)", "nodular opacit(?:y|ies)"),
    "cavity": ("cavit(?:y|ies|ation|ary lesion)", "cavitary \\w+"),
    "emphysema": (
        "emphysema(?:tous change)?",
        "bullae?",
        "copd",
        "chronic obstructive pulmonary disease",
    ),
    "hyperinflation": (
        "hyper ?inflat(?:ion|ed)",
        "hyper ?expan(?:sion|ded)",
        "flattened (?:hemi)?diaphragm",
    ),
    "subcutaneous emphysema": ("subcutaneous (?:emphysema|air|gas)",),
    "bronchiectasis": ("bronchiecta(?:sis|tic change)",),
    "pulmonary fibrosis": (
        "(?:pulmonary |lung )?fibro(?:sis|tic change)",
        "honeycombing",
        "usual interstitial pneumonia",
    ),
    "interstitial thickening": (
        "(?:interstitial|septal|interlobular septal|intralobular septal) (?:thickening|marking|prominence|line)",
        "reticulation",
        "kerley b? ?lines?",
    ),
    "pulmonary embolism": ("pulmonary (?:embol(?:ism|us|i)|thromboembolism)", "saddle embolus"),
    "pleural thickening": ("pleural thickening", "pleural plaque"),
    "granuloma": ("granulomas?", "granulomata", "granulomatous (?:disease|change)"),
    "elevated diaphragm": (
        "elevat(?:ed|ion)(?: of)?(?: the)?(?: left| right)? (?:hemi)?diaphragm",
        "eventration",
    ),
    "hilar enlargement": ("hilar (?:enlargement|prominence|fullness)", "prominent hil(?:um|a)"),
    "mediastinal widening": (
        "widen(?:ed|ing)(?: of)?(?: the)? (?:superior )?mediastinum",
        "mediastinal widening",
        "mediastinum is wide(?:ned)?",
    ),
    # heart and vessels
    "cardiomegaly": (
        "cardiomegaly",
        "(?:cardiac|heart) enlargement",
        "enlarged (?:heart|cardiac silhouette|cardiomediastinal silhouette)",
        "(?:heart|cardiac silhouette)(?: size)? (?:is|appears|remains)(?: \\w+)? enlarged",
    ),
    "pericardial effusion": ("pericardial (?:effusion|fluid)", "hemopericardium"),
    "aneurysm": ("(?:pseudo)?aneurysm", "aneurysmal dilat(?:at)?ion"),
    "dissection": ("dissection", "intimal flap"),
    "thrombus": ("thromb(?:us|i|osis|oses|osed)", "filling defect", "dvt"),
    "stenosis": ("stenos(?:is|es)", "stricture"),
    "occlusion": ("occlusion", "occluded"),
    "vascular malformation": (
        "arterio ?venous (?:malformation|fistula)",
        "avm",
        "vascular malformation",
        "cavernoma",
        "cavernous (?:malformation|angioma)",
    ),
    # brain, head and neck
    "hemorrhage": ("ha?emorrhag(?:e|ic)", "bleed(?:ing)?", "ha?emorrhages"),
    "hematoma": ("ha?ematoma",),
    "subdural hematoma": ("subdural (?:ha?ematoma|ha?emorrhage|collection|hygroma)", "sdh"),
    "epidural hematoma": ("(?:epi|extra)dural (?:ha?ematoma|ha?emorrhage|collection)",),
    "subarachnoid hemorrhage": ("subarachnoid (?:ha?emorrhage|blood)", "sah"),
    "infarct": ("infarct(?:ion|ed)?", "strokes?", "isch(?:a?)emi(?:a|c change|c injury)", "cva"),
    "mass effect": ("mass effect", "effacement"),
    "midline shift": (
        "mid ?line shift",
        "shift of(?: the)? midline(?: structures)?",
        "subfalcine herniation",
    ),
    "hydrocephalus": (
        "hydrocephalus",
        "ventriculomegaly",
        "(?:enlarged|dilated) (?:lateral )?ventricles?",
        "ventric(?:le|ular) (?:enlargement|dilat(?:at)?ion)",
    ),
    "cerebral edema": ("(?:cerebral|brain|vasogenic|cytotoxic|perilesional) o?edema",),
    "atrophy": ("atroph(?:y|ic)", "volume loss of the brain"),
    "white matter lesion": (
        "white matter (?:lesion|disease|change|hyperintensit(?:y|ies))",
        "demyelinat(?:ion|ing \\w+)",
        "leukoaraiosis",
        "(?:small vessel|microvascular) (?:ischemic )?(?:disease|change)",
    ),
    "encephalomalacia": ("encephalomalacia", "gliosis"),
    "brain herniation": (
        "(?:uncal|tonsillar|transtentorial|cerebellar tonsillar|brain) herniation",
    ),
    "pneumocephalus": ("pneumocephalus", "intracranial (?:air|gas)"),
    "sinus disease": (
        "sinusitis",
        "mucosal thickening",
        "sinus (?:disease|opacification)",
        "mastoiditis",
        "(?:retention|mucous) cyst",
    ),
    # bone, joint, spine
    "fracture": ("fractur(?:e|ed)", "fractures"),
    "dislocation": ("dislocat(?:ion|ed)",),
    "subluxation": ("sublux(?:ation|ed)", "spondylolisthesis", "(?:antero|retro)listhesis"),
    "disc herniation": (
        "dis[ck] (?:herniation|protrusion|extrusion|bulge|bulging)",
        "herniated dis[ck]",
        "bulging dis[ck]",
    ),
    "spinal stenosis": (
        "(?:spinal|canal|central canal|foraminal|neural foraminal) (?:canal )?(?:stenosis|narrowing)",
    ),
    "cord compression": (
        "(?:spinal )?cord compression",
        "compression of(?: the)? (?:spinal )?cord",
    ),
    "degenerative change": (
        "degenerat(?:ive|ion)(?: \\w+)? ?(?:change|disease)?",
        "osteo ?arthr(?:itis|osis)",
        "spondylosis",
        "osteophytes?",
        "joint space narrowing",
    ),
    "scoliosis": ("(?:dextro|levo)?scolio(?:sis|tic curvature)",),
    "osteopenia": ("osteopeni(?:a|c)", "osteoporo(?:sis|tic)", "demineraliz(?:ation|ed)"),
    "joint effusion": (
        "(?:joint|knee|hip|elbow|shoulder|suprapatellar) effusion",
        "hemarthrosis",
        "lipohemarthrosis",
    ),
    "tear": ("tears?", "torn", "ruptur(?:e|ed)"),
    "osteomyelitis": ("osteomyelitis", "discitis"),
    "lytic lesion": (
        "(?:osteo)?lytic (?:bone )?(?:lesion|change|destruction)",
        "(?:bone|bony|osseous) destruction",
    ),
    "sclerotic lesion": (
        "(?:osteo)?(?:sclerotic|blastic) (?:bone )?(?:lesion|change|focus|foci)",
        "osteosclerosis",
    ),
    "marrow edema": ("(?:bone )?marrow o?edema",),
    "osteonecrosis": ("osteonecrosis", "avascular necrosis", "avn"),
    # abdomen and pelvis
    "free air": (
        "free (?:intra ?peritoneal |intra ?abdominal |subdiaphragmatic )?(?:air|gas)",
        "pneumoperitoneum",
    ),
    "ascites": ("ascites", "free (?:intra ?peritoneal |pelvic |abdominal )?fluid"),
    "fluid collection": ("fluid collection",),
    "abscess": ("abscess(?:es)?", "empyema"),
    "bowel obstruction": (
        "(?:small |large )?bowel obstruction",
        "sbo",
        "ileus",
        "(?:dilated|distended) (?:loops of )?(?:small |large )?bowel(?: loops?)?",
    ),
    "bowel wall thickening": (
        "(?:bowel|colonic|mural) (?:wall )?thickening",
        "thickened (?:bowel|colon)(?: wall)?",
        "colitis",
        "enteritis",
    ),
    "appendicitis": ("appendicitis", "(?:dilated|enlarged|inflamed) appendix"),
    "appendicolith": ("appendicolith", "fecalith"),
    "diverticulitis": ("diverticulitis",),
    "diverticulosis": ("diverticul(?:osis|a|um)",),
    "cholecystitis": ("cholecystitis",),
    "gallstone": ("gall ?stones?", "cholelithiasis", "choledocholithiasis"),
    "biliary dilatation": (
        "(?:biliary|bile duct|ductal)(?: ductal)? dilat(?:at)?ion",
        "dilated (?:common )?bile ducts?",
    ),
    "pancreatitis": ("pancreatitis", "peripancreatic (?:stranding|fluid|inflammation)"),
    "hepatomegaly": ("hepato(?:spleno)?megaly", "enlarged liver"),
    "splenomegaly": ("splenomegaly", "enlarged spleen"),
    "cirrhosis": ("cirrho(?:sis|tic)", "nodular liver"),
    "steatosis": ("(?:hepatic )?steatosis", "fatty (?:liver|infiltration)"),
    "hydronephrosis": ("hydro(?:uretero)?nephro(?:sis|tic)", "pelvicaliectasis", "hydroureter"),
    "urinary stone": (
        "(?:renal|kidney|ureteral|ureteric|bladder|urinary) (?:calcul(?:us|i)|stones?)",
        "(?:nephro|uro)lithiasis",
    ),
    "pyelonephritis": ("pyelonephritis",),
    "intussusception": ("intussuscepti(?:on|ens|ptum)", "target sign"),
    "volvulus": ("volvulus", "malrotation"),
    "hernia": ("(?:hiatal |hiatus |inguinal |umbilical |ventral |diaphragmatic )?hernia",),
    "fat stranding": ("(?:fat |inflammatory |mesenteric )stranding", "stranding"),
    # anywhere
    "mass": (
        "mass(?:es)?",
        "tumou?rs?",
        "neoplas(?:m|tic \\w+)",
        "space occupying lesion",
        "adenocarcinoma",
        "carcinoma",
        "malignancy",
        "cancers?",
        "lymphomas?",
        "sarcomas?",
        "(?:glio|astrocyto|meningio|schwanno|oligodendroglio|ependymo|medulloblasto|hemangioblasto|cranio ?pharyngio|neuroblasto)mas?",
        "glioblastoma(?: multiforme)?",
        "gliomas?",
        "adenomas?",
    ),
    "metastasis": ("metasta(?:sis|ses|tic(?: disease| lesions?| deposits?| focus| foci)?)", "mets"),
    "cyst": ("(?:pseudo)?cysts?", "cystic (?:lesion|mass|structure|change)"),
    "lesion": ("lesions?", "foc(?:us|i) of (?:abnormal )?(?:signal|enhancement)"),
    "hemangioma": ("ha?emangiomas?",),
    "lipoma": ("(?:angiomyo)?lipomas?",),
    "lymphadenopathy": (
        "(?:lymph)?adenopathy",
        "(?:enlarged|prominent|pathologic) (?:\\w+ )?(?:lymph )?nodes?",
        "nodal (?:enlargement|disease)",
    ),
    "calcification": ("(?:micro|macro)?calcif(?:ication|ied \\w+)", "calcifications"),
    "edema": ("o?edema(?:tous)?", "swelling"),
    "enhancement": (
        "(?:contrast |rim |ring |abnormal |leptomeningeal |heterogeneous |homogeneous )?enhancement",
        "(?:ring |rim |avidly )?enhancing",
    ),
    "necrosis": ("necro(?:sis|tic)",),
    "foreign body": ("foreign (?:body|bodies)", "metallic fragments?", "bullet(?: fragment)?"),
    "asymmetry": ("focal asymmetry", "asymmetric density"),
    "architectural distortion": ("architectural distortion",),
}

STATED_ABSENT: dict[str, tuple[str, ...]] = {
    "cardiomegaly": (
        "(?:heart|cardiac silhouette|cardiac|cardiomediastinal silhouette)(?: and mediastin\\w+)?(?: size| contour)?s?"
        "(?: \\w+)? (?:is |are |appears? |remains? )?(?:within normal limits|normal|not enlarged|unremarkable)",
        "normal(?: sized?)? (?:heart|cardiac silhouette|cardiomediastinal silhouette)(?: size)?",
    ),
    "mediastinal widening": ("mediastinum is not wide(?:ned)?",),
    "hydrocephalus": (
        "ventricles(?: and sulci)? (?:are |is |appear )?(?:normal(?: in size)?|not (?:enlarged|dilated))",
    ),
}
"""Phrases that state the absence of a finding without naming it."""

SIDES: dict[str, str] = {
    "left": r"left(?:[ -]sided)?|lt|lul|lll",
    "right": r"right(?:[ -]sided)?|rt|rul|rml|rll",
    "both": r"bilateral(?:ly)?|both|b/l|bibasilar|bibasal|biapical|bihilar|biventricular",
}

_SEEN = (
    "seen|identified|noted|present|evident|visible|visuali[sz]ed|demonstrated|detected|appreciated|found|shown"
    "|observed|apparent|clearly seen|well seen|clearly visuali[sz]ed"
)
_BE = "(?:is|are|was|were|be|been|being|has been|have been|had been)"
_WHOLLY = "(?:entirely |completely |definitively |fully )?"
TRIGGERS: dict[str, tuple[str, ...]] = {
    "pseudo": (
        "no (?:significant |interval |appreciable |definite )*(?:change|increase|decrease|improvement|worsening)",
        "without (?:significant |interval |appreciable )*(?:change|increase|decrease|improvement)",
        "not only",
        "not (?:significantly |appreciably |yet )?(?:changed|increased|decreased|improved|cleared|resolved)",
        f"(?:has|have) not (?:yet )?{_WHOLLY}(?:changed|resolved|cleared)",
        "no (?:further|prior|previous|comparison)",
    ),
    "hedge_before": (
        "possibl[ey]",
        "probabl[ey]",
        "likely",
        "suspected",
        "suspicious for",
        "suspicion (?:of|for)",
        "concern(?:ing)? (?:for|of)",
        "worrisome for",
        "questionable",
        "question of",
        "equivocal",
        "(?:may|might|could) (?:represent|be|reflect|indicate|suggest|have)(?: (?:due|secondary|related) to)?",
        f"(?:cannot|can not|could not) {_WHOLLY}(?:exclude|rule out)",
        "rule out",
        "r/o",
        "evaluate for",
        "suggest(?:s|ive of|ing)",
        "raises? the (?:question|possibility) of",
        "differential (?:includes|diagnosis(?: includes)?)",
        r"\?",
    ),
    "hedge_after": (
        f"(?:cannot|can not|could not) {_WHOLLY}be {_WHOLLY}(?:excluded|ruled out)",
        f"(?:{_BE} )?not {_WHOLLY}(?:excluded|ruled out)",
        f"(?:{_BE} )?(?:possible|probable|likely|unlikely|suspected|questioned|questionable|considered|doubtful)"
        r"(?=\s*(?:$|[.,;)]|but\b|and\b|given\b|based\b))",
    ),
    "hedge_around": ("versus", r"vs\.?"),
    "no_after": (
        f"(?:{_BE} )?(?:not|no longer|never) (?:{_SEEN})",
        f"{_BE} (?:now |since |again )?{_WHOLLY}(?:absent|resolved|ruled out|excluded|cleared|gone|negative)",
        f"(?:has|have|had|now|since|subsequently) (?:now |since )*{_WHOLLY}(?:resolved|cleared|disappeared)",
        r"resolved(?=\s*(?:$|[.,;]))",
        "none(?: (?:is|are))?(?: seen| identified)?",
        r"(?<=: )(?:no|absent|negative)(?=\s*(?:$|[.,;]))",
    ),
    "no_before": (
        "no",
        "not",
        "without",
        "absence of",
        "absent",
        "lack(?:s|ing)?(?: of)?",
        "negative for",
        "free (?:of|from)",
        "clear of",
        "resolved",
        "resolution of",
        "den(?:y|ies|ied)",
        "neither",
        "nor",
        "never",
        "ruled out",
        "(?:fail(?:s|ed)|failure) to (?:show|reveal|demonstrate|identify)",
    ),
    "stop": (
        "but",
        "however",
        "although",
        "though",
        "except(?: for)?",
        "apart from",
        "aside from",
        "other than",
        "besides",
        "whereas",
        "while",
        "there (?:is|are|was|were)",
        "which",
        "nevertheless",
        "secondary to",
        "due to",
        "consistent with",
        "compatible with",
        "representing",
    ),
}
"""Kinds of trigger and their phrases (regular expressions over lower-case text with single spaces).

The kinds: pseudo-negations; hedges before, after and around a finding; negations after and before a finding;
and stops, which end the scope of earlier triggers.
"""
