// Inference of an ONNX model in ONNX Runtime, measured like `bench infer`: the same keys of the result.
//     NODE_PATH=node_modules node tests/bench/onnxruntime.js FILE BATCH SIZE THREADS SECONDS
// with the package onnxruntime-node; onnx_int8.py makes the files.
const began = process.hrtime.bigint();
const ort = require('onnxruntime-node');

const seconds_since = (start) => Number(process.hrtime.bigint() - start) / 1e9;

async function main() {
  const [file, batch, size, threads, seconds] = process.argv.slice(2).map((word, i) => (i === 0 ? word : Number(word)));
  const session = await ort.InferenceSession.create(file, {
    intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: 'all', executionMode: 'sequential',
    logSeverityLevel: 3});
  const pixels = Float32Array.from({length: batch * 3 * size * size}, () => Math.random() * 4 - 2);
  const images = {images: new ort.Tensor('float32', pixels, [batch, 3, size, size])};
  await session.run(images);
  const first = seconds_since(began);
  for (let i = 0; i < 2; ++i) await session.run(images);
  const times = [], start = process.hrtime.bigint();
  while (times.length < 9 || seconds_since(start) < seconds) {
    const now = process.hrtime.bigint();
    await session.run(images);
    times.push(seconds_since(now));
  }
  times.sort((a, b) => a - b);
  const middle = times[times.length >> 1];
  console.log(JSON.stringify({
    images_per_second: {median: batch / middle, min: batch / times[times.length - 1], max: batch / times[0]},
    latency_ms: {median: 1e3 * middle}, first_answer_ms: 1e3 * first, peak_bytes: 1024 * process.resourceUsage().maxRSS,
    versions: {'ONNX Runtime': require('onnxruntime-node/package.json').version}}));
}

main();
