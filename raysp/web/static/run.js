// The page of an answer: what the service can do about it, and what-ifs that are links.

import "./spec.js";
import "./exactly.js";
