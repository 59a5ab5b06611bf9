-- 95% intervals of predicted deviations from additivity around the intact input, from measured masks outside the fit; NULL: there were none, or the order is too high.
ALTER TABLE interactions ADD COLUMN estimate_lo DOUBLE;
ALTER TABLE interactions ADD COLUMN estimate_hi DOUBLE;
ALTER TABLE query_interactions ADD COLUMN estimate_lo DOUBLE;
ALTER TABLE query_interactions ADD COLUMN estimate_hi DOUBLE;
