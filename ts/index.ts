/**
 * hearsay: cluster membership, failure detection and shared state by gossip.
 *
 * @packageDocumentation
 */
export { Cluster, type MemberFilter } from './cluster.js'
export { HearsayError, type HearsayErrorCode } from './errors.js'
export type { ClusterEvent, ClusterEvents, Lagged, Rejoined, SeedFailed } from './events.js'
export { MerkleTree } from './merkle.js'
export type { MemberEventName } from './packed.js'
export { PhiAccrualDetector, type PhiOptions } from './phi.js'
export { ClusterRing, type ClusterRingEvents, HashRing } from './ring.js'
export {
  type SimulatedLoad,
  type SimulatedSpread,
  type SimulatedTimes,
  type SimulateOptions,
  type Simulation,
  type SimulationFigures,
  type SimulationKind,
  type SimulationScenarios,
  simulate,
} from './simulate.js'
export type { PrefixOptions, State, WatchOptions, WriteOptions } from './state.js'
export type { Answer, QueryOptions, Reached, Sender, Sent, SpreadOptions, WaitOptions } from './talk.js'
export type {
  AnswerOf,
  AnySchema,
  ClusterOptions,
  Codec,
  HashRingOptions,
  Health,
  KeyOf,
  Limits,
  Liveness,
  Logger,
  Member,
  Metrics,
  PartitionHealed,
  PayloadOf,
  PhiModel,
  QueriesOf,
  QueryOf,
  QueryPayloadOf,
  RingChange,
  RingMember,
  RingOptions,
  RumorInterest,
  SchemaShape,
  StateChange,
  StateOf,
  TopicOf,
  TopicsOf,
  ValueCodec,
  ValueOf,
  Written,
} from './types.js'
