// TensorFlow.js under Node, on its own CPU backend: a program that speaks the protocol of secateurs.
//
//     npm ci && secateurs verify --command "node harness.mjs"
//
// Its tensors are float32. Each operation calls what the library has in public for it; what it lacks is `lack(…)`.

import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';

// The CommonJS builds: the ES modules of these packages import folders, which Node refuses.
const require = createRequire(import.meta.url);
console.log = console.info = console.warn = console.error; // what the library prints is no answer
const tf = require('@tensorflow/tfjs-core');
const layers = require('@tensorflow/tfjs-layers');
require('@tensorflow/tfjs-backend-cpu');

class Unsupported extends Error {}
function lack(reason) { throw new Unsupported(reason); }

// --- tensors ---------------------------------------------------------------------------------------------------

function decode(tensor) {
  const words = tensor.bits ? tensor.bits.split(' ') : [];
  if (tensor.dtype === 'bool') return tf.tensor(words.map(Number), tensor.shape, 'bool');
  if (tensor.dtype === 'int64' || tensor.dtype === 'int32') {
    const bits = Number(tensor.dtype.slice(3));
    return tf.tensor(words.map(w => Number(BigInt.asIntN(bits, BigInt('0x' + w)))), tensor.shape, 'int32');
  }
  if (tensor.dtype !== 'float32') throw new TypeError(`no ${tensor.dtype} in TensorFlow.js`);
  const view = new DataView(new ArrayBuffer(4 * words.length));
  words.forEach((word, i) => view.setUint32(4 * i, parseInt(word, 16)));
  const wide = Float32Array.from(words, (_, i) => view.getFloat32(4 * i));
  return tf.tensor(wide, tensor.shape, 'float32');
}

function encode(tensor) {
  if (Array.isArray(tensor)) return tensor.map(encode);
  if (tensor == null) return null;
  const values = tensor.dataSync(), view = new DataView(new ArrayBuffer(4));
  const words = Array.from(values, value => {
    view.setFloat32(0, value);
    return view.getUint32(0).toString(16).padStart(8, '0');
  });
  return { dtype: 'float32', shape: tensor.shape, bits: words.join(' ') };
}

// A list may hold absent tensors (null), the same tensor again ({same_as: index}) and lists.
function decodeAll(tree) {
  if (tree === null) return null;
  if (!Array.isArray(tree)) return decode(tree);
  const list = [];
  for (const entry of tree) list.push(entry && 'same_as' in entry ? list[entry.same_as] : decodeAll(entry));
  return list;
}

// Numbers that are not finite come as strings.
const WORDS = { inf: Infinity, '-inf': -Infinity, nan: NaN };
function numbers(value) {
  if (Array.isArray(value)) return value.map(numbers);
  return typeof value === 'string' && value in WORDS ? WORDS[value] : value;
}

const each = (f, list) => list.map(t => (t === null ? null : f(t)));

// --- clipping, penalties, constraints -------------------------------------------------------------------------

function clipValue({ grads }, { min, max, range }) {
  if (range != null) {
    if (min != null || max != null) lack('tf.clipByValue takes two bounds, and no width beside them');
    [min, max] = [-range / 2, range / 2];
  }
  if (min == null && max == null) lack('tf.clipByValue cannot be called without a bound');
  return { grads: each(g => tf.clipByValue(g, min ?? -Infinity, max ?? Infinity), grads) };
}

function penalty(regularizer) {
  return ({ weights }, params) => {
    if (Object.values(params).some(s => !(s >= 0 && s < Infinity))) lack('a regulariser checks no strength');
    const term = regularizer(params), present = weights.filter(w => w !== null);
    if (!present.length) lack('a regulariser is of a weight');
    if (Object.values(params).every(s => s === 0)) lack('a regulariser of strength 0 leaves nothing to differentiate');
    const { value, grads } = tf.valueAndGrads((...ws) => tf.addN(ws.map(w => term.apply(w))))(present);
    return { value, grads: each(() => grads.shift(), weights) };
  };
}

function maxNorm({ weights }, { max_norm, axis }) {
  return { weights: each(w => {
    const groups = new Set([axis].flat().map(a => (a < 0 ? a + w.rank : a)));
    if ([...groups].some(a => a < 0 || a >= w.rank) || groups.size !== [axis].flat().length) {
      lack('tf.constraints.maxNorm takes the other axes: those that the norms run over');
    }
    const rest = w.shape.map((_, a) => a).filter(a => !groups.has(a));
    return layers.constraints.maxNorm({ maxValue: max_norm, axis: rest }).apply(w);
  }, weights) };
}

// --- optimisers -------------------------------------------------------------------------------------------------

// Gradients go in by the names of their variables; an absent one is null, so that each keeps its own state.
function optimise(make) {
  return ({ params, grads }, { lr, ...options }) => {
    if (options.weight_decay !== 0) lack('the optimisers of TensorFlow.js have no weight decay');
    const rates = Array.isArray(lr) ? lr : grads.map(() => lr);
    const variables = params.map(p => tf.variable(p)), optimizer = make(rates[0] ?? 0, options);
    const after = grads.map((step, t) => {
      if (t && rates[t] !== rates[t - 1]) {
        if (!optimizer.setLearningRate) lack('only SGD and Momentum have setLearningRate');
        optimizer.setLearningRate(rates[t]);
      }
      optimizer.applyGradients(Object.fromEntries(variables.map((v, i) => [v.name, step[i]])));
      return variables.map(v => v.clone());
    });
    return { params: after };
  };
}

function sgd(lr, { momentum, dampening, nesterov }) {
  if (dampening !== 0) lack('tf.train.momentum has no dampening');
  return momentum || nesterov ? tf.train.momentum(lr, momentum, nesterov) : tf.train.sgd(lr);
}

function adam(lr, { beta1, beta2, eps, amsgrad }) {
  if (amsgrad) lack('tf.train.adam has no amsgrad');
  return tf.train.adam(lr, beta1, beta2, eps);
}

function adagrad(lr, { lr_decay, eps, initial_accumulator }) {
  if (lr_decay !== 0) lack('tf.train.adagrad has no lr_decay');
  if (Math.fround(eps) !== Math.fround(1e-7)) lack('the epsilon of tf.train.adagrad is fixed at 1e-7');
  return tf.train.adagrad(lr, initial_accumulator);
}

const rmsprop = (lr, { alpha, eps, momentum, centered }) => tf.train.rmsprop(lr, alpha, momentum, eps, centered);

// --- layers and losses: forward, and the gradients that autograd makes of dy ------------------------------------

function differentiate(forward, inputs, dy) {
  const names = Object.keys(inputs).filter(name => inputs[name] != null);
  let y;
  const grads = tf.grads((...given) => {
    y = tf.keep(forward(Object.fromEntries(given.map((t, i) => [names[i], t]))));
    return y;
  })(names.map(name => inputs[name]), dy);
  const found = Object.fromEntries(Object.keys(inputs).map(name => [`d${name}`, grads[names.indexOf(name)] ?? null]));
  return { y, ...found };
}

const elementwise = f => ({ x, dy }, params) => differentiate(({ x }) => f(x, params), { x }, dy);

const dense = ({ x, weight, bias = null, dy }) => differentiate(
  ({ x, weight, bias }) => (bias ? tf.add(tf.matMul(x, weight), bias) : tf.matMul(x, weight)), { x, weight, bias }, dy);

const explicit = padding => [[0, 0], ...padding, [0, 0]];

function conv2d({ x, weight, bias = null, dy }, { stride, padding, dilation, groups }) {
  if (groups !== 1) lack('tf.conv2d has no groups');
  return differentiate(({ x, weight, bias }) => {
    const y = tf.conv2d(x, weight, stride, explicit(padding), 'NHWC', dilation);
    return bias ? tf.add(y, bias) : y;
  }, { x, weight, bias }, dy);
}

function pool(f) {
  return ({ x, dy }, { window, stride, padding, dilation, ceil_mode }) => {
    if (dilation.some(d => d !== 1)) lack('tf.maxPool and tf.avgPool have no dilation');
    if (ceil_mode) lack('tf.maxPool and tf.avgPool round only numbers of padding, not a list of them');
    return differentiate(({ x }) => f(x, window, stride ?? window, explicit(padding)), { x }, dy);
  };
}

function flatten({ x, dy }) {
  if (x.rank < 3) lack('tf.layers.flatten takes three axes at least');
  return differentiate(({ x }) => layers.layers.flatten().apply(x), { x }, dy);
}

// What a layer of tfjs-layers makes of its input and its weights: the gradients of sum(y * dy) in all of them.
function layerGradients(layer, weights, inputs, dy, forward) {
  layer.setWeights(Object.values(weights));
  const given = Object.entries(inputs).map(([name, t]) => [name, tf.variable(t)]);
  const owned = Object.keys(weights).map((name, i) => [name, layer.weights[i].read()]);
  const all = [...given, ...owned].filter(([, v]) => v.trainable);
  let y;
  const { grads } = tf.variableGrads(() => {
    y = tf.keep(forward(Object.fromEntries(given)));
    return tf.sum(tf.mul(y, dy));
  }, all.map(([, v]) => v));
  return { y, ...Object.fromEntries(all.map(([name, v]) => [`d${name}`, grads[v.name]])) };
}

function batchNorm({ x, scale, shift, running_mean, running_var, dy }, { eps, momentum, training }) {
  if (x.rank < 2 || x.rank > 4) lack('tf.layers.batchNormalization takes two to four axes');
  const layer = layers.layers.batchNormalization({ epsilon: eps, momentum: 1 - momentum });
  layer.build(x.shape);
  const weights = { scale, shift, running_mean, running_var };
  const outputs = layerGradients(layer, weights, { x }, dy, ({ x }) => layer.apply(x, { training }));
  const [mean, variance] = layer.getWeights().slice(2);
  return { ...outputs, running_mean: mean, running_var: variance };
}

function rnn({ x, weight, recurrent, bias = null, h0, dy }, { truncate }) {
  if (truncate != null) lack('tf.layers.simpleRNN has no truncation');
  const layer = layers.layers.simpleRNN({
    units: weight.shape[1], returnSequences: true, useBias: bias !== null, recurrentInitializer: 'zeros',
  });
  layer.apply(x); // its weights exist after the first call
  const weights = bias === null ? { weight, recurrent } : { weight, recurrent, bias };
  const outputs = layerGradients(layer, weights, { x, h0 }, dy, ({ x, h0 }) => layer.apply(x, { initialState: [h0] }));
  return { dbias: null, ...outputs };
}

const loss = f => ({ x, targets }, { reduction }) => {
  const reduce = reduction === 'mean' ? tf.Reduction.MEAN : tf.Reduction.SUM;
  const { value, grad } = tf.valueAndGrad(x => f(x, targets, reduce))(x);
  return { loss: value, dx: grad };
};

const crossEntropy = (x, targets, reduce) => {
  if (x.rank !== 2) lack('tf.losses.softmaxCrossEntropy is shown one row of logits an example');
  if (x.shape[1] < 2) lack('tf.oneHot takes two classes at least');
  const labels = targets.dataSync();
  if (labels.some(k => k < 0 || k >= x.shape[1])) lack('tf.oneHot has no classes out of range');
  return tf.losses.softmaxCrossEntropy(tf.oneHot(targets, x.shape[1]), x, undefined, 0, reduce);
};

// --- what there is, and how it is known to differ -----------------------------------------------------------------

const UNDEFINED = { empty_mean: 'undefined' };
const LOGITS = { ...UNDEFINED, outside_targets: 'extrapolate', infinite_logit: 'linear_form' };
const MAX_NORM = { eps: 1e-7, below_limit: 'rescaled', norm: 'naive', nonfinite: 'multiply', infinite_limit: 'multiply' };
const ADAM = { step_count: 'optimizer', hyperparameters: 'input_dtype' };
const OPERATIONS = {
  'clip.value': [clipValue, {}],
  'penalty.l1': [penalty(p => layers.regularizers.l1({ l1: p.strength })), {}],
  'penalty.l2': [penalty(p => layers.regularizers.l2({ l2: p.strength })), {}],
  'penalty.elastic_net': [penalty(p => layers.regularizers.l1l2(p)), {}],
  'project.max_norm': [maxNorm, MAX_NORM],
  'optim.sgd': [optimise(sgd), {}],
  'optim.adam': [optimise(adam), ADAM],
  'optim.rmsprop': [optimise(rmsprop), { eps_at: 'inside_root', momentum_form: 'lr_inside' }],
  'optim.adagrad': [optimise(adagrad), { eps_at: 'inside_root' }],
  'layer.dense': [dense, {}],
  'layer.conv2d': [conv2d, {}],
  'layer.max_pool2d': [pool(tf.maxPool), { nan: 'ignore' }],
  'layer.avg_pool2d': [pool(tf.avgPool), {}],
  'layer.relu': [elementwise(x => tf.relu(x)), {}],
  'layer.leaky_relu': [elementwise((x, { slope }) => tf.leakyRelu(x, slope)), {}],
  'layer.sigmoid': [elementwise(x => tf.sigmoid(x)), {}],
  'layer.tanh': [elementwise(x => tf.tanh(x)), {}],
  'layer.flatten': [flatten, {}],
  'layer.batch_norm': [batchNorm, { running_variance: 'biased' }],
  'layer.rnn': [rnn, {}],
  'loss.mse': [loss((x, t, reduce) => tf.losses.meanSquaredError(t, x, undefined, reduce)), UNDEFINED],
  'loss.binary_cross_entropy': [loss((x, t, reduce) => tf.losses.sigmoidCrossEntropy(t, x, undefined, 0, reduce)), LOGITS],
  'loss.softmax_cross_entropy': [loss(crossEntropy), UNDEFINED],
};

function start() {
  const entries = Object.entries(OPERATIONS);
  return { protocol: 1, implementation: {
    name: 'tfjs', version: tf.version_core, language: 'JavaScript', language_version: process.versions.node,
    homepage: 'https://www.tensorflow.org/js',
    operations: Object.fromEntries(entries.map(([name]) => [name, { dtypes: ['float32'] }])),
    dialect: Object.fromEntries(entries.map(([name, [, dialect]]) => [name, dialect])),
  } };
}

function run({ operation, inputs, params }) {
  if (!(operation in OPERATIONS)) return { unsupported: { reason: `no ${operation} in TensorFlow.js` } };
  tf.engine().startScope();
  try {
    const given = Object.fromEntries(Object.entries(inputs).map(([name, tree]) => [name, decodeAll(tree)]));
    const set = Object.fromEntries(Object.entries(params).map(([name, value]) => [name, numbers(value)]));
    const outputs = OPERATIONS[operation][0](given, set);
    return { outputs: Object.fromEntries(Object.entries(outputs).map(([name, tree]) => [name, encode(tree)])) };
  } catch (error) {
    if (error instanceof Unsupported || /not (yet )?supported/.test(error.message)) {
      return { unsupported: { reason: error.message } };
    }
    // The library refuses arguments by a plain Error or its ValueError; another kind is a mishap.
    const meant = error.constructor === Error || error.constructor.name === 'ValueError';
    const what = { message: `${error.constructor.name}: ${error.message}` };
    return meant ? { rejected: what } : { errored: { ...what, traceback: error.stack } };
  } finally {
    tf.engine().endScope();
    tf.disposeVariables();
  }
}

await tf.setBackend('cpu');
for await (const line of createInterface({ input: process.stdin })) {
  let request = {}, answer;
  try {
    request = JSON.parse(line);
    if (request.cmd === 'stop') process.exit(0);
    answer = request.cmd === 'start' ? start() : { id: request.id, ...run(request) };
  } catch (error) {
    answer = { id: request.id ?? null, errored: { message: String(error) } };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
