// Scores photos in Node: node score.mjs MODEL PHOTO...
// One line of JSON a photo; errors as one line each on stderr, then the exit code is 1.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import opencv from "@techstark/opencv-js";
import * as ort from "onnxruntime-node";
import sharp from "sharp";
import { check, score } from "./fre.mjs";

const MAX_PIXELS = 64_000_000; // a small file can unpack to gigabytes

async function open(folder) {
  const card = JSON.parse(await readFile(join(folder, "model.json"), "utf8"));
  check(card);
  const file = join(folder, card.variants.fp32.files.onnxruntime);
  const session = await ort.InferenceSession.create(await readFile(file), { logSeverityLevel: 3 });
  return { ort, cv: await opencv, session, card };
}

/** Upright 8-bit RGB, as fre_runtime reads a photo. */
async function read(file) {
  const photo = sharp(await readFile(file), { ignoreIcc: true, limitInputPixels: MAX_PIXELS });
  if ((await photo.metadata()).space === "cmyk") throw new Error("CMYK is not supported");
  const { data, info } = await photo
    .autoOrient()
    .removeAlpha()
    .toColourspace("srgb")
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

function fail(what, error) {
  console.error(`score.mjs: ${what}: ${error.message.replaceAll(/\s+/g, " ")}`);
  process.exitCode = 1;
}

const [folder, ...photos] = process.argv.slice(2);
if (!photos.length) {
  console.error(`usage: node ${basename(process.argv[1])} MODEL PHOTO...`);
  process.exit(2);
}
const model = await open(folder).catch((error) => fail(folder, error));
for (const source of model ? photos : []) {
  try {
    const { anomaly_map, ...result } = await score(model, await read(source));
    console.log(JSON.stringify({ source, ...result }));
  } catch (error) {
    fail(source, error);
  }
}
